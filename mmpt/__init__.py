"""MMPT: pre-train video-text models on long, noisy, narrated videos.

Importing this package imports nothing heavy.
"""

import logging

__version__ = "1.0.0.dev0"

# faiss would announce every CPU variant that it tries.
logging.getLogger("faiss.loader").setLevel(logging.WARNING)
