"""One self-contained page: scores, pictures, settings."""
