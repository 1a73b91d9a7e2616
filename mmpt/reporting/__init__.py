"""Writes the report of an evaluation: one HTML file with numbers, curves, predictions and failures.

Importing this package imports neither matplotlib nor Jinja2. Only `write_report` needs them.
"""

import lazy_loader

# `__init__.pyi` lists the public names. A name's module is imported when the name is first used.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
