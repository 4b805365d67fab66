"""One run's life in this process: its beginning or resumption, the parts that its steps need, its end."""
