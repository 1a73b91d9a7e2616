"""The commands of `mmpt`. Only this package parses arguments or starts processes."""
