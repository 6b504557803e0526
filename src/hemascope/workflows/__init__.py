"""One file per command: the only places where rooms are wired together."""
