"""Extraction of features from videos."""
