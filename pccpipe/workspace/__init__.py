"""Sends the run's copy of the code to the VM, fetches it, refuses what is not safe, and makes the diff."""
