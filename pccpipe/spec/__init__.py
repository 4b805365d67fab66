"""Turns YAML text into a checked, typed Pipeline. Knows nothing of running."""
