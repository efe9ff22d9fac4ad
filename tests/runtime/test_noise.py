"""The noise against torch's generator."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgepress.runtime.noise import torch_randn

SEEDS = [0, 1, 42, 2**31, 2**32 - 1, 2**32, 2**32 + 42, 0x76991A99, 2**62 + 12345, 2**63 - 1, 2**64 - 1]


def make_reference(shape: tuple[int, ...], seed: int) -> np.ndarray:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).numpy()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    "shape", [(1,), (2,), (7,), (15,), (16,), (17,), (31,), (32,), (33,), (5, 7, 3), (1, 16, 8, 8), (1, 16, 13, 7)]
)
def test_noise_equals_torch(shape: tuple[int, ...], seed: int) -> None:
    noise = torch_randn(shape, seed)
    assert noise.dtype == np.float32
    assert noise.shape == shape
    assert np.abs(noise - make_reference(shape, seed)).max() < 1e-6


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(st.integers(1, 1000), st.integers(0, 2**63 - 1))
def test_noise_of_any_size_and_seed_equals_torch(size: int, seed: int) -> None:
    assert np.abs(torch_randn((size,), seed) - make_reference((size,), seed)).max() < 1e-6


@pytest.mark.parametrize("size", [2**20, 2**20 + 5])
def test_long_noise_equals_torch_to_its_end(size: int) -> None:
    """The generator's state of 624 words is refilled many times."""
    assert np.abs(torch_randn((size,), 7) - make_reference((size,), 7)).max() < 1e-6


def test_global_generator_of_numpy_is_unchanged() -> None:
    before = np.random.get_state()[1].copy()  # type: ignore[index]
    torch_randn((100,), 3)
    assert np.array_equal(before, np.random.get_state()[1])  # type: ignore[index]


def test_empty_noise() -> None:
    assert torch_randn((0, 4), 1).shape == (0, 4)
