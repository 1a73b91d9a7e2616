"""Reports: a scoring as one HTML file with numbers, training curves, predictions and failures.

Importing it loads neither matplotlib nor Jinja2, which only `write_report` needs.
"""

import lazy_loader

# `__init__.pyi` lists the public names. A name's module is imported when the name is first used.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
