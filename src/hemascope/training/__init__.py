"""Fitting a network to labeled images."""
