"""Measurements that README and docs rest on; each writes its own section of docs/benchmarks.md."""
