"""Feeds every parser of foreign bytes with what no honest side would send."""
