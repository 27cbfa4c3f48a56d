"""Training crops, each a pure function of seed, number and pool."""
