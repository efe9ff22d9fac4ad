"""Tests of what no list of examples covers: hostile input for every reader, and a fault at every step of a command."""
