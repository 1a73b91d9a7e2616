"""The page of `mmpt app`: searches an index of moments, and aligns transcripts with its videos.

Only `page.py` needs Gradio.
"""
