"""One metric a file, each with a function `make(settings)`; `registry.discover` finds them by scanning this folder."""
