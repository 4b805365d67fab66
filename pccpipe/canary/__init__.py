"""`pccpipe selfcheck`: gives a canary secret to a real run, and searches every place that must not have a secret."""
