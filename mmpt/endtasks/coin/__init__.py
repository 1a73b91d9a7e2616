"""COIN: action segmentation."""
