"""Generates the demo corpus, a small synthetic data set whose true alignment is known.

Settings and words make a world of steps and tasks (world.py). The world makes videos and their
narrations (video.py). These are written as files (corpus.py).
"""
