"""Reads the values of secrets, and masks them in everything that is written."""
