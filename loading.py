"""Registers the loader: after `import edgepress.loading`, diffusers and transformers read pressed components.

A pressed component's config.json says `quantization_config: {quant_method: awq, ...}`. Its linears are replaced by
`Int4Linear`, and the embeddings that an extra key `embeddings` names by `Int8Embedding`.
"""

from __future__ import annotations

from diffusers.quantizers import auto as diffusers_auto
from transformers.quantizers import auto as transformers_auto
from transformers.utils.quantization_config import AwqConfig as StockAwqConfig

from .pipelines.hf_quantizers import (
    AwqConfig,
    DiffusersAwqQuantizer,
    QuantMethod,
    TransformersAwqConfig,
    TransformersAwqQuantizer,
)

# transformers compares names of classes where a config comes with the call and with the model.
TransformersAwqConfig.__name__ = StockAwqConfig.__name__


diffusers_auto.AUTO_QUANTIZER_MAPPING[QuantMethod.AWQ.value] = DiffusersAwqQuantizer
diffusers_auto.AUTO_QUANTIZATION_CONFIG_MAPPING[QuantMethod.AWQ.value] = AwqConfig
transformers_auto.AUTO_QUANTIZER_MAPPING[QuantMethod.AWQ.value] = TransformersAwqQuantizer
transformers_auto.AUTO_QUANTIZATION_CONFIG_MAPPING[QuantMethod.AWQ.value] = TransformersAwqConfig
