"""Model families, described as data: what is quantized, which graphs are exported, and what the host computes."""
