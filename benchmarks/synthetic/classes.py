"""The genuine classes that random pipelines consist of. Importing them takes seconds."""

from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, ZImagePipeline, ZImageTransformer2DModel
from transformers import Qwen2Tokenizer, Qwen3Config, Qwen3Model

__all__ = [
    "AutoencoderKL",
    "FlowMatchEulerDiscreteScheduler",
    "Qwen2Tokenizer",
    "Qwen3Config",
    "Qwen3Model",
    "ZImagePipeline",
    "ZImageTransformer2DModel",
]
