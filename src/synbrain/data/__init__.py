"""Recordings on disk: voxel space, trials, responses, and the readers that make datasets."""
