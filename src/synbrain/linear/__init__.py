"""The linear path: tokens to expected responses in closed form, and how it is fitted."""
