"""CrossTask: step localisation."""
