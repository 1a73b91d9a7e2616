"""Prepares data before training. Only the commands and their page import this package."""
