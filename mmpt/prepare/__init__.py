"""Prepares data before training. Only `mmpt.cli` and `mmpt.app` import this package."""
