"""A brain whose truth is known, in NSD's layout."""
