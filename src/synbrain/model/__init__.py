"""SynBrain: its parts, its folder, its card, and synthesis."""
