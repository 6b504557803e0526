"""Networks against each other."""
