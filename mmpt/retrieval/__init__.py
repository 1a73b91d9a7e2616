"""Batches of hard negatives: collects video vectors, finds their neighbours and plans batches.

Nothing here knows about models or YAML. Importing the package does not load faiss.
"""

import lazy_loader

# `__init__.pyi` lists the public names. A name's module is imported when the name is first used.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
