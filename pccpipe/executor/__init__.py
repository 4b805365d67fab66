"""Runs a Pipeline on targets and says what happens, as events. Knows no paramiko, docker or sh."""
