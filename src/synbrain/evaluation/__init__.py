"""Dataset and model to scores, and scores to a table."""
