"""The public API: functions that the command line stands on too. `import edgepress` gives all of them."""
