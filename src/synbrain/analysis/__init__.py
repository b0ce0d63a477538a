"""What the synthetic brain is like: ROIs, consistency, surfaces."""
