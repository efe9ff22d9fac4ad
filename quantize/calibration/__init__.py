"""TODO quantize/calibration."""
