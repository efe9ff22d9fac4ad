"""Answers which of several candidates to use, on which device."""
