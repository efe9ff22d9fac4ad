"""Runs graphs as chains of parts on a Rockchip NPU: with the runtime of a board, or in the simulator of the toolkit."""
