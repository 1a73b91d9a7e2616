"""Generates the demo corpus, a small synthetic data set whose true alignment is known.

Settings and words make a world of steps and tasks (world.py). The world makes videos (video.py)
and their narrations (narration.py). These are written as files (corpus.py).
"""
