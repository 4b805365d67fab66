"""Where secrets' values come from, and their masking in everything that is written."""
