"""Export to GGUF, for ComfyUI-GGUF, the loader of diffusers, llama.cpp and others that stand on ggml."""
