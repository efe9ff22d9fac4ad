"""Other quantization tools at nearly the same bits, with the same layers, prompts and code for generating images."""
