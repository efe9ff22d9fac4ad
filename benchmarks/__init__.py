"""Benchmarks: each command measures one thing and writes its tables to docs/benchmarks/."""
