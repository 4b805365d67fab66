"""A small control centre: projects whose pipelines the server does not trust, each with a VM and secrets of its own."""
