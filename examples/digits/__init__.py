"""Handwritten digits: a project folder as a user's repository holds one. `project.toml` says what to train, `scans.py` makes the rows."""
