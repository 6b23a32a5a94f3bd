"""Main: what older systems offered, over a Boss, for scripts that were written for them; imported on demand only.

Each module stands for one of them, and is imported by its own name.
"""
