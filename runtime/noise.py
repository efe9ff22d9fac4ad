"""The noise of torch's CPU generator, in numpy: a seed gives the picture here that it gives there.

torch seeds the Mersenne Twister MT19937 with the low 32 bits of the seed, as numpy's RandomState does, and makes normal
values from uniform ones by Box and Muller's formula, sqrt(-2 ln u) cos(2πv) and sqrt(-2 ln u) sin(2πv). Which uniform
values meet depends on how many normal ones are asked for (torch's normal_fill and normal_distribution).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

BLOCK_SIZE = 16  # values that are filled together; fewer than these are drawn one after the other


def torch_randn(shape: tuple[int, ...], seed: int) -> NDArray[np.float32]:
    """What `torch.randn(shape, generator=torch.Generator().manual_seed(seed))` gives, to about 1e-6.

    Args:
        shape: of the result, float32.
        seed: 0 ... 2^64 - 1, of which the low 32 bits count.
    """
    size = math.prod(shape)
    generator = np.random.RandomState(seed & 0xFFFFFFFF)
    values = _fill_blocks(generator, size) if size >= BLOCK_SIZE else _draw_pairs(generator, size)
    return values.reshape(shape)


def _fill_blocks(generator: np.random.RandomState, size: int) -> NDArray[np.float32]:
    """In blocks of 16; where the last is not whole, the last 16 values are made anew from further words."""
    uniform = _draw_uniform(generator, size)
    whole = size - size % BLOCK_SIZE
    values = np.empty(size, np.float32)
    values[:whole] = _box_muller(uniform[:whole])
    if whole < size:
        values[-BLOCK_SIZE:] = _box_muller(_draw_uniform(generator, BLOCK_SIZE))
    return values


def _draw_uniform(generator: np.random.RandomState, size: int) -> NDArray[np.float32]:
    """float32 in [0, 1) of 24 bits, a word each."""
    bits = generator.randint(0, 2**32, size, np.uint32) & np.uint32(2**24 - 1)
    return bits.astype(np.float32) * np.float32(2**-24)


def _box_muller(uniform: NDArray[np.float32]) -> NDArray[np.float32]:
    """Blocks whose first half holds the radii and whose second half the angles; the first half becomes the cosines."""
    radii, angles = uniform.reshape(-1, 2, BLOCK_SIZE // 2).swapaxes(0, 1)
    radius = np.sqrt(-2 * np.log(1 - radii))
    angle = np.float32(2 * math.pi) * angles
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).reshape(-1)


def _draw_pairs(generator: np.random.RandomState, size: int) -> NDArray[np.float32]:
    """Two by two in float64, the angle's uniform value before the radius's."""
    angles, radii = _draw_uniform_double(generator, size + size % 2).reshape(-1, 2).T
    radius, angle = np.sqrt(-2 * np.log1p(-radii)), 2 * math.pi * angles
    pairs = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return pairs.reshape(-1)[:size].astype(np.float32)


def _draw_uniform_double(generator: np.random.RandomState, size: int) -> NDArray[np.float64]:
    """float64 in [0, 1) of 53 bits, two words each, the high one first."""
    high, low = generator.randint(0, 2**32, (size, 2), np.uint32).astype(np.uint64).T
    bits = (high << np.uint64(32) | low) & np.uint64(2**53 - 1)
    uniform: NDArray[np.float64] = bits.astype(np.float64) * 2.0**-53
    return uniform
