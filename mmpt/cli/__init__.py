"""What a user starts from a shell; the only package that parses arguments or starts processes."""
