"""Downloads of checkpoints, weights, lists and annotations to where the YAMLs look for them."""
