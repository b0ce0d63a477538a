"""One dataset on disk: voxel space, trials, responses, scaling, budget."""
