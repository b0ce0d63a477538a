"""Recordings to a dataset: tables, BIDS-like betas, NSD."""
