"""MMPT: pre-train video-text models on long, noisy, narrated videos. Importing this package imports nothing heavy."""

__version__ = "1.0.0"
