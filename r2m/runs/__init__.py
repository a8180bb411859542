"""A run's folder: names, journal, provenance. The truth about what was done."""
