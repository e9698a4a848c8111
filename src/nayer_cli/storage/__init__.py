"""Everything that is read from disk or written to it: files, settings, checkpoints, records, and the hub's cache."""
