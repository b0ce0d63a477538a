"""SynBrain: the model that users hold."""
