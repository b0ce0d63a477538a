"""Configs, batches, one visible loop, and the stages that it runs."""
