"""Extracts features from videos."""
