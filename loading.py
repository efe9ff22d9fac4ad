"""Registers the INT4 loader: after `import edgepress.loading`, `from_pretrained` loads quantized pipelines.

It works for diffusers and for transformers. The config.json of a quantized component contains
`quantization_config: {quant_method: awq, ...}`; its linear layers are loaded as `Int4Linear`, and its embeddings with
8 bits as `Int8Embedding`. Opening an artifact's folder in place of its `model/` is an error that says so.
"""

from __future__ import annotations

from .pipelines.artifact_folders import explain_artifact_folders
from .pipelines.hf_quantizers import register_quantizers

register_quantizers()
explain_artifact_folders()
