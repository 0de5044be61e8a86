"""What runs and studies leave on disk: the only part that knows the names of the files."""
