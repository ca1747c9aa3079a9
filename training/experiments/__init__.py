"""Experiments on record: what was tried, by which command, and what came out."""
