"""BrainVAE, S2N mapper, their losses and sizes."""
