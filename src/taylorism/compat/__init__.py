"""Main: the faces of older systems, each in a module of its own that is imported on demand."""
