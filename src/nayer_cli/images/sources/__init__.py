"""Where labelled images come from, one kind a file."""
