"""Checks and statistics of prepared data."""
