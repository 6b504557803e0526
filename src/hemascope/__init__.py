"""Classify peripheral blood cells, and show how far the answers can be trusted."""

__version__ = "0.1.0"
