"""Planted disturbances: what `bench` makes of a machine on which something is in the way, and of quiet ones."""
