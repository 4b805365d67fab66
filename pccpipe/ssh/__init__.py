"""The run's one SSH connection to the project's VM."""
