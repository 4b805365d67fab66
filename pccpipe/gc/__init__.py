"""Clearing up what runs left: on the project's VM, on an engine, here. What a live run has is never touched.

`decide.py` says what goes, by facts alone; `look.py` gathers the facts; `sweep.py` removes.
"""

from pccpipe.gc.sweep import collect_over as collect_over
