"""Proves what pressing has lost: the reference and the variant paint the same prompts from the same noise.

`plan` settles what is compared, `generate` makes the pictures, `metrics/` measures them, `results` keeps every number
in one file, and `summary` and `table` show nothing that is not computed from that file. `run.evaluate` does it all.
"""
