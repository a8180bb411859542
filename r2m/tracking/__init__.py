"""MLflow, fed from the runs' journals."""
