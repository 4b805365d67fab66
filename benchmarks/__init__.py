"""Measure pccpipe beside programs that do the same work: one command, medians and ratios in one run."""
