"""Decodes video files and encodes them with S3D, or with models of transformers or timm."""

import lazy_loader

# `__init__.pyi` lists the public names. A name's module is imported when the name is first used.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
