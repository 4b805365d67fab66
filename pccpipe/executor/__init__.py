"""Run a pipeline on targets, and report its course as events. Knows no paramiko, docker or sh."""
