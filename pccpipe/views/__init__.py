"""Events made readable: a live tree on a terminal, plain lines elsewhere, JSON lines for programs."""
