"""Integer formats of weights: quantizing, packing, and multiplying by packed codes. Needs nothing but PyTorch."""
