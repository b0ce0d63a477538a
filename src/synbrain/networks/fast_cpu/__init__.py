"""Exact fast paths of the convolutions on a CPU."""
