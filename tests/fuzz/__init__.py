"""Feed every parser of foreign bytes with input that no honest side would send."""
