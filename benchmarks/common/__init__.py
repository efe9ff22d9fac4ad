"""What all benchmarks share: the cost of a process, and the report."""
