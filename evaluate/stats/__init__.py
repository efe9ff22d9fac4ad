"""Statistics of scores: bootstrap intervals, McNemar's test, power analysis."""
