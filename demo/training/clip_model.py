"""A plain CLIP with open_clip's names and shapes, for training the demo's: two transformers and a shared space.

It follows Radford et al., "Learning Transferable Visual Models From Natural Language Supervision" (arXiv 2103.00020),
with open_clip's configuration keys, so that open_clip loads its weights. Activations are GELU, not QuickGELU.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CONFIG: dict[str, Any] = {
    "model_cfg": {
        "embed_dim": 256,
        "quick_gelu": False,
        "vision_cfg": {"image_size": 128, "patch_size": 16, "layers": 4, "width": 192, "head_width": 48},
        "text_cfg": {
            "context_length": 32,
            "vocab_size": 0,  # set to that of the tokenizer
            "hf_tokenizer_name": ".",  # open_clip then reads the tokenizer next to the weights
            "layers": 3,
            "width": 192,
            "heads": 4,
        },
    },
    "preprocess_cfg": {
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    },
}


class TransformerBlock(nn.Module):
    """A pre-norm transformer block. The attention is torch's own, like in open_clip, for its parameter names."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ln_2 = nn.LayerNorm(width)
        inner = [("c_fc", nn.Linear(width, 4 * width)), ("gelu", nn.GELU()), ("c_proj", nn.Linear(4 * width, width))]
        self.mlp = nn.Sequential(OrderedDict[str, nn.Module](inner))

    def forward(self, x: Tensor, causal: bool) -> Tensor:
        heads = self.attn.num_heads
        normed = F.linear(self.ln_1(x), self.attn.in_proj_weight, self.attn.in_proj_bias)
        query, key, value = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in normed.chunk(3, dim=-1))
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=causal)
        x = x + self.attn.out_proj(mixed.transpose(1, 2).flatten(2))
        out: Tensor = x + self.mlp(self.ln_2(x))
        return out


class TransformerStack(nn.Module):
    """A sequence of transformer blocks."""

    def __init__(self, width: int, heads: int, layers: int) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(TransformerBlock(width, heads) for _ in range(layers))

    def forward(self, x: Tensor, causal: bool = False) -> Tensor:
        for block in self.resblocks:
            x = block(x, causal)
        return x


class VisionTransformer(nn.Module):
    """Maps normalised images (n, 3, side, side) to the class token and the patches, (n, 1 + patches, width)."""

    def __init__(
        self, embed_dim: int, image_size: int, patch_size: int, layers: int, width: int, head_width: int
    ) -> None:
        super().__init__()
        patches = (image_size // patch_size) ** 2
        self.conv1 = nn.Conv2d(3, width, patch_size, patch_size, bias=False)
        self.class_embedding = nn.Parameter(width**-0.5 * torch.randn(width))
        self.positional_embedding = nn.Parameter(width**-0.5 * torch.randn(patches + 1, width))
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = TransformerStack(width, width // head_width, layers)
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(width**-0.5 * torch.randn(width, embed_dim))

    def forward(self, images: Tensor) -> Tensor:
        patches = self.conv1(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_embedding.to(patches.dtype).expand(len(patches), 1, -1), patches], dim=1)
        out: Tensor = self.transformer(self.ln_pre(x + self.positional_embedding))
        return out


class ClipModel(nn.Module):
    """The image encoder and the text encoder. Embeddings have length 1."""

    def __init__(
        self, embed_dim: int, vision_cfg: dict[str, Any], text_cfg: dict[str, Any], quick_gelu: bool = False
    ) -> None:
        super().__init__()
        if quick_gelu:
            raise ValueError("QuickGELU is not supported.")
        width = text_cfg["width"]
        self.visual = VisionTransformer(embed_dim, **vision_cfg)
        self.token_embedding = nn.Embedding(text_cfg["vocab_size"], width)
        self.positional_embedding = nn.Parameter(0.01 * torch.randn(text_cfg["context_length"], width))
        self.transformer = TransformerStack(width, text_cfg["heads"], text_cfg["layers"])
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(width**-0.5 * torch.randn(width, embed_dim))
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        nn.init.normal_(self.token_embedding.weight, std=0.02)

    def encode_image(self, images: Tensor) -> Tensor:
        """Embeds normalised images (n, 3, side, side)."""
        return self.project_image(self.visual(images))

    def project_image(self, tokens: Tensor) -> Tensor:
        """Projects the output of the vision transformer to embeddings."""
        return F.normalize(self.visual.ln_post(tokens[:, 0]) @ self.visual.proj, dim=-1)

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Embeds tokens (n, context), at the end token, which has the largest id of all."""
        x = self.token_embedding(tokens) + self.positional_embedding
        x = self.ln_final(self.transformer(x, causal=True))
        ends = x[torch.arange(len(x)), tokens.argmax(dim=-1)]
        return F.normalize(ends @ self.text_projection, dim=-1)
