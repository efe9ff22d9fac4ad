"""Runs the reference model over calibration prompts and gathers statistics of every quantized linear's input."""
