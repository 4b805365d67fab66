# The page needs only the project's VM.
:
