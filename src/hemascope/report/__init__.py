"""Saved runs into pages a person reads; nothing here trains or predicts."""
