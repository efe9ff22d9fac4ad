"""The command line: a module per command, which parses options and prints what functions of `edgepress.api` return."""
