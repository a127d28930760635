"""Planted defects, each with a healthy twin: what share of them the product catches, and how often it cries wolf.

`python -m tests.defects` runs all of them; README.md says how they are made and how to add one.
"""
