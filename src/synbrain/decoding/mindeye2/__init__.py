"""MindEye2 (Scotti et al. 2024): ridge layers, a shared backbone, a projector, a diffusion prior."""
