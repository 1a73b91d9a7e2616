"""Downloads checkpoints, weights, lists and annotations to the paths that the YAMLs name."""
