"""Graphs and torch modules that several families share: text encoders, autoencoders, rotary embedding."""
