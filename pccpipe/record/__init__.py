"""The record of a run on disk: event types, the journal, and run.json as a fold over events."""
