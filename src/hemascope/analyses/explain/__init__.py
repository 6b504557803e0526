"""Where a network looks."""
