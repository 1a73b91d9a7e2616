"""Preparation of data before training. Only the command lines import it."""
