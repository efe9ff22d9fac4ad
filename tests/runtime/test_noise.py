"""The noise held against torch's own generator."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgepress.runtime.noise import torch_randn

SEEDS = [0, 1, 42, 2**31, 2**32 - 1, 2**32, 2**32 + 42, 0x76991A99, 2**62 + 12345, 2**63 - 1, 2**64 - 1]


def reference(shape: tuple[int, ...], seed: int) -> np.ndarray:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).numpy()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    "shape", [(1,), (2,), (7,), (15,), (16,), (17,), (31,), (32,), (33,), (5, 7, 3), (1, 16, 8, 8), (1, 16, 13, 7)]
)
def test_it_is_torchs(shape: tuple[int, ...], seed: int) -> None:
    found = torch_randn(shape, seed)
    assert found.dtype == np.float32
    assert found.shape == shape
    assert np.abs(found - reference(shape, seed)).max() < 1e-6


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 1000), st.integers(0, 2**63 - 1))
def test_it_is_torchs_for_any_size_and_seed(size: int, seed: int) -> None:
    assert np.abs(torch_randn((size,), seed) - reference((size,), seed)).max() < 1e-6


@pytest.mark.parametrize("size", [2**20, 2**20 + 5])
def test_a_large_one_stays_torchs_to_its_end(size: int) -> None:
    """Many turns of the generator's state of 624 words."""
    assert np.abs(torch_randn((size,), 7) - reference((size,), 7)).max() < 1e-6


def test_it_leaves_numpys_own_generator_alone() -> None:
    before = np.random.get_state()[1].copy()  # type: ignore[index]
    torch_randn((100,), 3)
    assert np.array_equal(before, np.random.get_state()[1])  # type: ignore[index]


def test_no_values_are_none() -> None:
    assert torch_randn((0, 4), 1).shape == (0, 4)
