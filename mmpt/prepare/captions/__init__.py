"""Caption files: reading, de-duplication, tokenisation."""
