"""What an operator lets the pipelines and project files of others ask for."""
