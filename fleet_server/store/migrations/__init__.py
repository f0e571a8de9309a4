"""Schema revisions, oldest first; `env.py` runs them on a connection that the caller opened."""
