"""What runs there are, read from their folders alone: no torch, no checkpoint is opened."""
