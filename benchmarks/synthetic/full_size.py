"""Writes a pipeline with the exact shapes of Z-Image-Turbo and random weights, to measure the cost of quantizing it.

    python -m edgepress.benchmarks.synthetic.full_size --output DIR

It takes 20.5 GB in bfloat16. Names and shapes come from the genuine classes on the meta device. Every tensor is drawn
from a seed derived from its name and streamed to disk, so that memory holds one shard at a time. The images are noise,
but the weights resemble trained ones: rows and columns of unequal scale, outliers, norms that amplify some channels.
Every linear layer keeps the scale of its inputs, so that bfloat16 holds through all layers.
"""

from __future__ import annotations

import hashlib
import math
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor, nn

from ...storage.checkpoint import write_sharded
from ...storage.files import write_json

TRANSFORMER: dict[str, Any] = {
    "in_channels": 16,
    "dim": 3840,
    "n_layers": 30,
    "n_refiner_layers": 2,
    "n_heads": 30,
    "n_kv_heads": 30,
    "cap_feat_dim": 2560,
    "axes_dims": [32, 48, 48],
    "axes_lens": [1536, 512, 512],
}
TEXT_ENCODER: dict[str, Any] = {
    "vocab_size": 151_936,
    "hidden_size": 2560,
    "intermediate_size": 9728,
    "num_hidden_layers": 36,
    "max_window_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 40_960,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0},
    "tie_word_embeddings": True,
    "use_cache": False,
    "dtype": "bfloat16",
    "architectures": ["Qwen3Model"],
}
VAE: dict[str, Any] = {
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 2,
    "norm_num_groups": 32,
    "latent_channels": 16,
    "sample_size": 1024,
    "scaling_factor": 0.3611,
    "shift_factor": 0.1159,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
}
PARAMETERS = {"transformer": 6_154_908_736, "text_encoder": 4_022_468_096, "vae": 83_819_683}
STEMS = {"transformer": "diffusion_pytorch_model", "text_encoder": "model", "vae": "diffusion_pytorch_model"}

SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)

CHUNK_SIZE = 2**22  # elements drawn at once, so that they are still in the cache when they are scaled
LOG_STD = 0.3  # standard deviation of the logarithm of the scales of rows, columns and norms
OUTLIER_INTERVAL, OUTLIER_SCALE = 2000, 6.0  # one weight in 2000 is 6 times as large
LOUD_INTERVAL, LOUD_MIN, LOUD_MAX = 500, 10.0, 30.0  # one channel in 500 is amplified 10 to 30 times
LOUD_NORMS = ("attention_norm1", "ffn_norm1", "input_layernorm", "post_attention_layernorm")
MODULATION = re.compile(r"adaLN_modulation|norm\w*\.linear\.|_mod\.")  # linears that scale, shift and gate
# Layers whose outputs are added to the residual stream of the text encoder. The transformer has norms and gates there.
RESIDUAL_OUTPUTS = ("o_proj", "down_proj")


@dataclass(frozen=True)
class PipelineShapes:
    """The configs of the three components with weights.

    Attributes:
        transformer: Arguments of `ZImageTransformer2DModel`.
        text_encoder: Arguments of `Qwen3Config`.
        vae: Arguments of `AutoencoderKL`.
    """

    transformer: dict[str, Any]
    text_encoder: dict[str, Any]
    vae: dict[str, Any]

    def with_layers(self, layers: int) -> PipelineShapes:
        """Returns shapes of the same width with fewer layers."""
        text = {"num_hidden_layers": layers, "max_window_layers": layers}
        return replace(
            self,
            transformer=self.transformer | {"n_layers": layers, "n_refiner_layers": 1},
            text_encoder=self.text_encoder | text,
        )


FULL_SHAPES = PipelineShapes(TRANSFORMER, TEXT_ENCODER, VAE)
# A transformer of 125 million parameters, for measurements that take many runs. The other components are small.
MEDIUM_SHAPES = PipelineShapes(
    TRANSFORMER
    | {"dim": 1536, "n_layers": 4, "n_refiner_layers": 0, "n_heads": 12, "n_kv_heads": 12, "cap_feat_dim": 256},
    TEXT_ENCODER
    | {"vocab_size": 512, "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2, "max_window_layers": 2}
    | {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64},
    VAE | {"block_out_channels": [16, 16, 16, 16], "norm_num_groups": 4, "layers_per_block": 1, "sample_size": 512},
)
# Every kind of layer once, for images of 64 x 64 pixels in a fraction of a second.
TINY_SHAPES = PipelineShapes(
    TRANSFORMER
    | {"dim": 384, "n_layers": 2, "n_refiner_layers": 1, "n_heads": 6, "n_kv_heads": 6, "cap_feat_dim": 128}
    | {"axes_dims": [16, 24, 24], "axes_lens": [1024, 64, 64]},
    TEXT_ENCODER
    | {"vocab_size": 512, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 3, "max_window_layers": 3}
    | {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32},
    VAE | {"block_out_channels": [8, 8, 8, 8], "norm_num_groups": 4, "layers_per_block": 1, "sample_size": 64},
)


def make_wide_shapes(blocks: int, text_blocks: int = 0) -> PipelineShapes:
    """Returns a transformer of full-width blocks, 181 million parameters each, with small other components.

    Args:
        blocks: Number of the transformer's blocks.
        text_blocks: Number of the text encoder's blocks that are used; 0 for a small text encoder.
    """
    transformer = FULL_SHAPES.transformer | {"n_layers": blocks, "n_refiner_layers": 0}
    if not text_blocks:
        return replace(MEDIUM_SHAPES, transformer=transformer | {"cap_feat_dim": 256})
    text = {"vocab_size": 512, "num_hidden_layers": text_blocks + 1, "max_window_layers": text_blocks + 1}
    return replace(MEDIUM_SHAPES, transformer=transformer, text_encoder=FULL_SHAPES.text_encoder | text)


# ---------------------------------------------------------------- the folder


def write_pipeline(folder: Path, shapes: PipelineShapes = FULL_SHAPES, with_weights: bool = True) -> None:
    """Writes the pipeline folder, unless it exists.

    Args:
        folder: The folder. It appears only when it is complete.
        shapes: The shapes of its components.
        with_weights: Whether to write weights, and not only configs and tokenizer.
    """
    if folder.exists():
        return
    new = folder.with_name(folder.name + ".new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    models = make_meta_models(shapes)
    write_configs(models, new)
    for name, model in models.items() if with_weights else ():
        write_sharded(draw_weights(name, model), new / name, STEMS[name])
    new.replace(folder)


def make_meta_models(shapes: PipelineShapes) -> dict[str, Any]:
    """Returns the genuine models on the meta device by component, without memory for their weights."""
    from .classes import AutoencoderKL, Qwen3Config, Qwen3Model, ZImageTransformer2DModel

    with torch.device("meta"):
        return {
            "transformer": ZImageTransformer2DModel(**shapes.transformer),
            "text_encoder": Qwen3Model(Qwen3Config(**shapes.text_encoder)),
            "vae": AutoencoderKL(**shapes.vae),
        }


def count_parameters(model: nn.Module) -> int:
    """Returns the number of parameters of a model."""
    return sum(parameter.numel() for parameter in model.parameters())


def write_configs(models: dict[str, Any], folder: Path) -> None:
    """Writes everything of the pipeline except weights."""
    from .classes import FlowMatchEulerDiscreteScheduler, ZImagePipeline

    scheduler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=3.0)
    tokenizer = make_byte_tokenizer()
    ZImagePipeline(scheduler=scheduler, tokenizer=tokenizer, **models).save_config(folder)
    scheduler.save_pretrained(folder / "scheduler")
    tokenizer.save_pretrained(folder / "tokenizer")
    for name in ("transformer", "vae"):
        models[name].save_config(folder / name)
    (folder / "text_encoder").mkdir()
    write_json(models["text_encoder"].config.to_dict(), folder / "text_encoder" / "config.json")


def make_byte_tokenizer() -> Any:
    """Returns a byte-level BPE tokenizer without merges: every byte is a token."""
    from tokenizers import pre_tokenizers

    from .classes import Qwen2Tokenizer

    vocabulary = {token: number for number, token in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Qwen2Tokenizer(vocab=vocabulary, merges=[])
    tokenizer.add_special_tokens({"eos_token": SPECIAL_TOKENS[2], "additional_special_tokens": SPECIAL_TOKENS[1:]})
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.model_max_length = 512
    tokenizer.padding_side = "right"
    return tokenizer


# ---------------------------------------------------------------- the weights


def draw_weights(component: str, model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yields the parameters of a model on the meta device, drawn one by one, in bfloat16."""
    for name, parameter in model.named_parameters():
        yield name, draw_tensor(name, parameter.shape, make_generator(component, name), compute_gain(name, model))


def make_generator(component: str, name: str) -> torch.Generator:
    """Returns a generator that is seeded by the name of a tensor."""
    seed = hashlib.sha256(f"{component}.{name}".encode()).digest()[:8]
    return torch.Generator().manual_seed(int.from_bytes(seed, "big") >> 1)


def compute_gain(name: str, model: nn.Module) -> float:
    """Returns the scale of a layer's outputs relative to its inputs; small for those that add up in the residual."""
    if not name.removesuffix(".weight").endswith(RESIDUAL_OUTPUTS):
        return 1.0
    return float(sum(module.endswith(RESIDUAL_OUTPUTS) for module, _ in model.named_modules()) ** -0.5)


def draw_tensor(name: str, shape: torch.Size, generator: torch.Generator, gain: float) -> Tensor:
    """Draws a tensor. Linear layers and convolutions turn inputs of RMS 1 into outputs of RMS `gain`."""
    if name.endswith("bias"):
        return (LOG_STD * torch.randn(shape, generator=generator)).bfloat16()
    if len(shape) == 1:
        return _draw_norm(shape[0], generator, loud=name.removesuffix(".weight").endswith(LOUD_NORMS)).bfloat16()
    if name.endswith(("pad_token", "embed_tokens.weight")):
        return _draw_matrix(shape, generator, 1.0)
    if MODULATION.search(name):
        return _draw_matrix(shape, generator, LOG_STD * shape[1] ** -0.5)
    return _draw_matrix(shape, generator, gain * math.prod(shape[1:]) ** -0.5)


def _draw_norm(channels: int, generator: torch.Generator, loud: bool) -> Tensor:
    """Draws the log-normal weight of a norm; `loud` norms amplify a few channels."""
    weight = (LOG_STD * torch.randn(channels, generator=generator)).exp()
    if loud:
        channels_chosen = torch.randperm(channels, generator=generator)[: channels // LOUD_INTERVAL + 1]
        weight[channels_chosen] = torch.empty(len(channels_chosen)).uniform_(LOUD_MIN, LOUD_MAX, generator=generator)
    return weight


def _draw_matrix(shape: torch.Size, generator: torch.Generator, size: float) -> Tensor:
    """Draws normal numbers times log-normal scales of rows and columns, with outliers, some rows at a time."""
    rows, columns = shape[0], math.prod(shape[1:])
    across = size * _draw_sizes(columns, generator)
    matrix = torch.empty(rows, columns, dtype=torch.bfloat16)
    buffer = torch.empty(min(rows, max(1, CHUNK_SIZE // columns)), columns)
    for part in matrix.split(len(buffer)):
        block = buffer[: len(part)].normal_(generator=generator)
        block.mul_(across).mul_(_draw_sizes(len(part), generator)[:, None])
        strays = torch.randint(block.numel(), (block.numel() // OUTLIER_INTERVAL,), generator=generator)
        block.view(-1)[strays] *= OUTLIER_SCALE
        part.copy_(block)
    return matrix.view(shape)


def _draw_sizes(count: int, generator: torch.Generator) -> Tensor:
    """Draws log-normal scales with mean square 1."""
    return (LOG_STD * torch.randn(count, generator=generator) - LOG_STD**2).exp()


@click.command(help=__doc__)
@click.option("--output", required=True, type=click.Path(path_type=Path), help="The pipeline folder to write.")
@click.option("--layers", type=click.IntRange(2), help="Write fewer layers.")
@click.option("--medium", is_flag=True, help="A transformer of 125 million parameters and small other components.")
@click.option(
    "--blocks",
    type=click.IntRange(1),
    help="A transformer with this number of full-width blocks and small other components.",
)
@click.option("--text-blocks", type=click.IntRange(1), help="With --blocks: full-width blocks of the text encoder.")
@click.option("--configs", is_flag=True, help="Write no weights. Enough to plan an export.")
def main(
    output: Path, layers: int | None, medium: bool, blocks: int | None, text_blocks: int | None, configs: bool
) -> None:
    shapes = make_wide_shapes(blocks, text_blocks or 0) if blocks else MEDIUM_SHAPES if medium else FULL_SHAPES
    write_pipeline(output, shapes.with_layers(layers) if layers else shapes, with_weights=not configs)


if __name__ == "__main__":
    main()
