"""Work on more than one process or machine, on existing engines."""
