"""What is read from disk and written to it: files, settings, checkpoints, records, and the hub's cache."""
