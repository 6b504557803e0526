"""Which uncertainty estimate detects errors."""
