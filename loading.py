"""Registers the INT4 loader: after `import edgepress.loading`, `from_pretrained` loads quantized pipelines.

It works for diffusers and for transformers. The config.json of a quantized component contains
`quantization_config: {quant_method: awq, ...}`; its linear layers are loaded as `Int4Linear`, and its embeddings with
8 bits as `Int8Embedding`.
"""

from __future__ import annotations

from diffusers.quantizers import auto as diffusers_auto
from transformers.quantizers import auto as transformers_auto

from .pipelines.hf_quantizers import (
    AwqConfig,
    DiffusersAwqQuantizer,
    QuantMethod,
    TransformersAwqConfig,
    TransformersAwqQuantizer,
)

diffusers_auto.AUTO_QUANTIZER_MAPPING[QuantMethod.AWQ.value] = DiffusersAwqQuantizer
diffusers_auto.AUTO_QUANTIZATION_CONFIG_MAPPING[QuantMethod.AWQ.value] = AwqConfig
transformers_auto.AUTO_QUANTIZER_MAPPING[QuantMethod.AWQ.value] = TransformersAwqQuantizer
transformers_auto.AUTO_QUANTIZATION_CONFIG_MAPPING[QuantMethod.AWQ.value] = TransformersAwqConfig
