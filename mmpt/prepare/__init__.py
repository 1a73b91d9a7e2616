"""Prepares data before training. Only the commands import this package."""
