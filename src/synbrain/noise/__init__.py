"""Trial noise: what it is, and how it is fitted."""
