"""Everything that has a file name."""
