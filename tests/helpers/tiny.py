"""A real ZImagePipeline with random weights, small enough for tests: 64 x 64 images in a fraction of a second."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgepress.prompts.prompt import Prompt, save_prompts

IMAGE_SIZE = 64  # pixels
WIDTH = 128  # of the text encoder's features
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def write_tiny_pipeline(folder: Path, layers: int = 1, refiners: int = 1, heads: int = 6) -> None:
    """Writes a pipeline folder. Its weights are equal each time, and the caller's random state does not change.

    Args:
        folder: The folder to write.
        layers: The number of blocks of the transformer, besides its refiners.
        refiners: The number of refiners of each of two kinds.
        heads: The number of attention heads of the transformer, each of 64 channels.
    """
    import torch
    from diffusers import FlowMatchEulerDiscreteScheduler, ZImagePipeline

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tokenizer = _tokenizer()
        pipeline = ZImagePipeline(
            scheduler=FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=3.0),
            vae=_vae(),
            text_encoder=_text_encoder(len(tokenizer)),
            tokenizer=tokenizer,
            transformer=_transformer(layers, refiners, heads),
        )
        _randomize_vectors(pipeline.transformer)
        _randomize_vectors(pipeline.text_encoder)
    pipeline.save_pretrained(folder)


def write_tiny_prompts(folder: Path) -> None:
    """Writes three prompts for calibration and evaluation into a pipeline folder."""
    (folder / "prompts").mkdir()
    prompts = [Prompt(id=f"p{i}", prompt=text, language="en") for i, text in enumerate(("a cat", "two dogs", "rain"))]
    for name in ("calibration", "evaluation"):
        save_prompts(prompts, folder / "prompts" / f"{name}.jsonl")


@contextmanager
def edit_weights(component: Path) -> Iterator[dict[str, Any]]:
    """Yields the tensors of a component's only weight file by name, and stores them as changed."""
    from safetensors.torch import load_file, save_file

    (file,) = component.glob("*.safetensors")
    tensors = load_file(file)
    yield tensors
    save_file(tensors, file, {"format": "pt"})


def store_as_published(pipeline: Path, head: bool) -> None:
    """Stores the text encoder as a causal language model, as published pipelines do.

    Its class in model_index.json stays that of the plain model.

    Args:
        pipeline: The pipeline folder.
        head: Whether to store the layer that predicts tokens too.
    """
    import torch

    folder = pipeline / "text_encoder"
    with edit_weights(folder) as tensors:
        plain = dict(tensors)
        tensors.clear()
        tensors.update({f"model.{name}": tensor for name, tensor in plain.items()})
        if head:
            tensors["lm_head.weight"] = torch.ones_like(plain["embed_tokens.weight"])
    config = json.loads((folder / "config.json").read_text("utf-8"))
    config |= {"architectures": ["Qwen3ForCausalLM"], "tie_word_embeddings": not head}
    (folder / "config.json").write_text(json.dumps(config), "utf-8")


def _randomize_vectors(model: Any) -> None:
    """Randomizes vectors that are initialized to ones or zeros, as training would: norms and pad tokens."""
    import torch

    for parameter in model.parameters():
        if parameter.numel() == parameter.shape[-1] and parameter.unique().numel() == 1:
            parameter.data += 0.3 * torch.randn_like(parameter)


def _transformer(layers: int, refiners: int, heads: int) -> Any:
    from diffusers import ZImageTransformer2DModel

    return ZImageTransformer2DModel(
        in_channels=16,
        dim=64 * heads,
        n_layers=layers,
        n_refiner_layers=refiners,
        n_heads=heads,
        n_kv_heads=heads,
        cap_feat_dim=WIDTH,
        axes_dims=[16, 24, 24],
        axes_lens=[1024, 64, 64],
    )


def _text_encoder(vocabulary: int) -> Any:
    from transformers import Qwen3Config, Qwen3Model

    config = Qwen3Config(
        vocab_size=vocabulary,
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=64,
        tie_word_embeddings=True,
        max_position_embeddings=512,
        use_cache=False,
    )
    return Qwen3Model(config).eval()


def _vae() -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=16,
        sample_size=IMAGE_SIZE,
        scaling_factor=0.3611,
        shift_factor=0.1159,
        mid_block_add_attention=False,
        use_quant_conv=False,
        use_post_quant_conv=False,
    ).eval()


def _tokenizer() -> Any:
    """Byte-level BPE without merges: every byte is a token."""
    from tokenizers import pre_tokenizers
    from transformers import Qwen2Tokenizer

    vocabulary = {token: number for number, token in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Qwen2Tokenizer(vocab=vocabulary, merges=[])
    tokenizer.add_special_tokens({"eos_token": SPECIAL[2], "additional_special_tokens": SPECIAL[1:]})
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.model_max_length = 512
    tokenizer.padding_side = "right"
    return tokenizer
