"""One run's life in this process: how it begins or goes on, what its steps need, how it ends."""
