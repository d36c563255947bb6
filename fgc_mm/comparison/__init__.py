"""Many runs, one table: what tools/compare.py is made of."""
