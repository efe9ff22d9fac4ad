"""Without most of their padding, text encoders return the same for real tokens, in tensors of the same shape."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import Qwen3Config, Qwen3Model

from edgepress.quantize.calibration.padding import PADDING_COLUMNS, without_padding

LENGTH = 64


@pytest.fixture(scope="module")
def encoder() -> Qwen3Model:
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=50, hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=2,
        num_key_value_heads=1, head_dim=16, use_cache=False,
    )  # fmt: skip
    return Qwen3Model(config).eval().requires_grad_(False)


def make_mask(*lengths: int, left: bool = False) -> Tensor:
    mask = torch.arange(LENGTH) < torch.tensor(lengths)[:, None]
    return mask.flip(1) if left else mask


def encode(encoder: Qwen3Model, mask: Tensor | None, trims: bool) -> tuple[Any, list[int]]:
    """What the encoder returns, and how many tokens its first block computed in each call."""
    ids = torch.randint(0, 50, (2, LENGTH), generator=torch.Generator().manual_seed(1))
    lengths: list[int] = []
    handle = encoder.layers[0].register_forward_pre_hook(lambda _, args: lengths.append(args[0].shape[1]))
    with without_padding(*([encoder] if trims else [])):
        output = encoder(input_ids=ids, attention_mask=mask, output_hidden_states=True)
    handle.remove()
    return output, lengths


def test_real_tokens_keep_their_values_and_outputs_their_shapes(encoder: Qwen3Model) -> None:
    mask = make_mask(9, 21)
    (output, lengths), (expected, _) = (encode(encoder, mask, trims) for trims in (True, False))
    assert lengths == [21 + PADDING_COLUMNS]
    pairs = zip((output[0], *output.hidden_states), (expected[0], *expected.hidden_states), strict=True)
    for states, expected_states in pairs:
        assert states.shape == expected_states.shape
        torch.testing.assert_close(states[mask], expected_states[mask], rtol=1e-4, atol=1e-5)


def test_what_is_left_out_is_the_last_column_of_padding_again(encoder: Qwen3Model) -> None:
    states = encode(encoder, make_mask(3, 5), trims=True)[0].last_hidden_state
    last = 5 + PADDING_COLUMNS - 1
    assert torch.equal(states[:, last:], states[:, last : last + 1].expand_as(states[:, last:]))


@pytest.mark.parametrize(
    "mask", [None, make_mask(9, LENGTH), make_mask(9, 21, left=True)], ids=["none", "full", "left"]
)
def test_nothing_changes_without_columns_of_padding_at_the_end(encoder: Qwen3Model, mask: Tensor | None) -> None:
    (output, lengths), (expected, _) = (encode(encoder, mask, trims) for trims in (True, False))
    assert lengths == [LENGTH]
    assert torch.equal(output.last_hidden_state, expected.last_hidden_state)


def test_afterwards_models_compute_everything_again(encoder: Qwen3Model) -> None:
    encode(encoder, make_mask(3, 5), trims=True)
    assert encode(encoder, make_mask(3, 5), trims=False)[1] == [LENGTH]
