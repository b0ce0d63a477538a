"""Responses back to images: decoders, their training, and what synthetic responses are good for."""
