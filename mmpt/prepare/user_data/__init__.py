"""Prepares the user's own videos or features: their captions, split and training YAML."""
