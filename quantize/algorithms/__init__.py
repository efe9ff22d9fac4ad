"""TODO quantize/algorithms."""
