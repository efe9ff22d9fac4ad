"""The types that describe a model family: its components, graphs, host, reference and NPU parts."""
