"""The generator of the demo corpus: settings and words -> world (steps, tasks) -> videos and
narration -> files.
"""
