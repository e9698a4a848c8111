"""Sources of labelled images, one kind in each file."""
