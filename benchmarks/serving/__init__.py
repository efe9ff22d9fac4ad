"""Benchmarks of the server, all against a server of their own on 127.0.0.1."""
