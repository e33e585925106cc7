"""A case as one signed file, and the proof that nothing in it was changed."""
