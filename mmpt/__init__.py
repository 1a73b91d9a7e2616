"""MMPT: a framework for pre-training video-text models on long, narrated videos.

Importing this package loads neither torch nor any other large library.
"""

import logging

__version__ = "1.0.0.dev0"

# At its default level, faiss logs every CPU variant that it tries to load.
logging.getLogger("faiss.loader").setLevel(logging.WARNING)
