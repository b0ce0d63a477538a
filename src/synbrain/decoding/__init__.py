"""fMRI to image: decoders and data augmentation."""
