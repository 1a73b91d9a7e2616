"""Small tools without knowledge of models or data sets."""
