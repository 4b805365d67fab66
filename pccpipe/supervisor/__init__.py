"""Runs the commands of this machine: one process for each run, beside pccpipe, that outlives it.

`loop.py`, `work.py`, `spool.py`, `processes.py` and `wire.py` are that process. They import only a little of the
standard library, because the process starts with the run's first local step. The other files talk to it.
"""
