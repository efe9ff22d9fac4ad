"""Export of text encoders in the format pack-quantized of compressed-tensors."""
