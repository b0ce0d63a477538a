"""Every system on one dataset: train, score, compare."""
