"""Responses to images: decoders, alignment, augmentation by synthetic trials, scores of images."""
