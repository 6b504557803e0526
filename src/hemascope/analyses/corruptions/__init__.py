"""What is left of accuracy under corruptions."""
