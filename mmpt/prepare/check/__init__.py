"""Checks prepared data and computes its statistics."""
