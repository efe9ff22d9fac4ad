"""Presses a pipeline to 4 bits: plan -> calibrate -> solve a block at a time -> write."""
