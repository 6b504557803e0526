"""A trained network on any data."""
