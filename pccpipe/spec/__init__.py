"""YAML text to a checked, typed Pipeline. Knows nothing of running."""
