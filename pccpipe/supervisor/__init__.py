"""Runs the commands of this machine: one process a run, beside pccpipe, that outlives it.

`loop.py`, `work.py`, `spool.py`, `processes.py` and `wire.py` are that process. They import the standard library
alone, and little of it, as the process starts with the run's first local step. The other files speak to it.
"""
