"""The Docker Engine API over a Unix socket here or through the run's SSH connection."""
