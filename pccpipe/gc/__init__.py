"""Removes what runs left on the project's VM, on an engine and on this machine, and nothing of a live run.

`look.py` collects the facts, `decide.py` decides by them alone, and `sweep.py` removes.
"""

from pccpipe.gc.sweep import collect_over as collect_over
