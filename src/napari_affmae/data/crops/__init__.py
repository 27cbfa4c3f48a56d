"""Training crops, each a pure function of seed and index."""
