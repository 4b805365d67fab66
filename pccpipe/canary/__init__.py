"""`pccpipe selfcheck`: runs a canary secret through a real run, and looks for it wherever a secret must not be."""
