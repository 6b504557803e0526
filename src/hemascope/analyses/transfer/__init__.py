"""A network on another laboratory's cells."""
