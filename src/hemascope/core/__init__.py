"""The vocabulary every room shares."""
