"""The run's copy of the code: what goes up, what comes back, what is refused, and the diff."""
