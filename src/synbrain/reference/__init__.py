"""Published checkpoints of SynBrain."""
