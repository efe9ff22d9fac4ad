"""TODO quantize/solver."""
