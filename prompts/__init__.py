"""Prompts, and sets of them: shipped ones, users' files, and the formats of published benchmarks."""
