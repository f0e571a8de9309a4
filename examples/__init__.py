"""Examples that run from a checkout; they use only the public names and command lines."""
