"""A model on disk, a loaded one, and the fields it returns."""
