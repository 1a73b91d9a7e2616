"""Packing of features into shards."""
