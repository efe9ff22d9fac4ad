"""Export to a safetensors file with ComfyUI's layout for 4-bit weights."""
