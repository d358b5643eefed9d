"""Datamodules, and the order in which they give their samples."""
