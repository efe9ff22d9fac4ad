"""One metric a file, each with a constant `METRIC`; `registry.discover` finds them by scanning this folder."""
