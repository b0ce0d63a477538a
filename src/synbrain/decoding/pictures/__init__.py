"""Predicted tokens to pictures, and how like the seen ones they are."""
