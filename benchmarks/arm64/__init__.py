"""Runs exported graphs on an emulated arm64 processor."""
