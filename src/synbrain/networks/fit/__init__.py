"""One visible training loop, and the two stages that it runs."""
