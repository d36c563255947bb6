"""Networks on a clock, and what the MACs promise."""
