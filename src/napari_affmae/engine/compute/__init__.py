"""Where and in what precision a run computes, what it takes, and its random numbers."""
