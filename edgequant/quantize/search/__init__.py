"""Chooses how each layer's weights are kept: the smallest, or the fastest, model that meets a target."""
