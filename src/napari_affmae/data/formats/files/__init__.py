"""Files and folders as the system has them: opened, pooled, named by others."""
