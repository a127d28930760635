"""A device made ready, and what is taken from it."""
