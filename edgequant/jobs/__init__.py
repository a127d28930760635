"""The commands' work: short functions that tie the rooms together."""
