# The page speaks of the project's VM.
:
