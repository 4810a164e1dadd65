"""Reading and writing checkpoints in the official layout."""
