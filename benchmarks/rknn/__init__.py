"""Benchmarks of parts for Rockchip's NPUs, in the simulator of rknn-toolkit2."""
