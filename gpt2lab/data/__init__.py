"""What is trained on, in which order, and the token files that text is read from."""
