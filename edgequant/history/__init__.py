"""Runs one after the other: kept in one SQLite file, which is made anew from their folders at any time."""
