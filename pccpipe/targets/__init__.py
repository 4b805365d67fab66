"""Where commands run: one file a target, one protocol (base.py)."""
