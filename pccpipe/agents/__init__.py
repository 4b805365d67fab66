"""Describe the programs of agents: how each is started, and how its output is read."""
