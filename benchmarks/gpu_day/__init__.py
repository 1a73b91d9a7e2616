"""Everything that is worth measuring on a GPU, in one command. `__main__.py` describes it."""
