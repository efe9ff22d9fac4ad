"""Measures the performance of an exported artifact on this machine: startup, latencies, memory, and drift.

`worker` generates images in a process of its own, `worker_process` starts it and measures it from outside, `runner`
runs the benchmark, `schema` defines bench.json, and `report` renders that file. `machine` and `power` describe where it
ran.
"""
