"""Subjects, linear path, networks and noise put together: train and adapt."""
