"""Test runs under random faults: a record must be true, whatever struck and whenever."""
