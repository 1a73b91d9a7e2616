"""Packs features into shards."""
