"""The Natural Scenes Dataset: layout, trials, voxels, download."""
