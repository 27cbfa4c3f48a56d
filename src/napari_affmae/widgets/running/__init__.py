"""How a dock starts, watches and stops a run."""
