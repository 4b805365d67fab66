"""Runs under random faults: what a record says must be what happened, whatever struck and whenever."""
