"""This machine, or a VM, as something that runs programs and opens connections; and the claim on it."""
