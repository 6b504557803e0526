"""The published study and its reproduction."""
