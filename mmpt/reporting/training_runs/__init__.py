"""Reports about training runs: reads the folder of a run, and shows one or several runs on a page.

Reading changes nothing in the folder of a run, which may be in progress.
"""

import lazy_loader

# `__init__.pyi` lists the public names. A name's module is imported when the name is first used.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
