"""DiDeMo: moment retrieval."""
