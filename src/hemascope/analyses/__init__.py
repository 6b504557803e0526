"""One folder a question: run (wiring), words (text and figures)."""
