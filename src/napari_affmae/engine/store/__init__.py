"""What lies on disk: run folders, checkpoints, model files, and their list."""
