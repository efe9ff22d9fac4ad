"""Gaussian noise in numpy that equals the noise of torch's CPU generator, so that a seed gives the same image.

torch seeds the Mersenne Twister MT19937 with the low 32 bits of the seed, as numpy's RandomState does, and turns
uniform into normal values by the Box-Muller transform, sqrt(-2 ln u) cos(2 pi v) and sqrt(-2 ln u) sin(2 pi v). How
uniform values are paired depends on their number (`normal_fill` and `normal_distribution` in torch).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

BLOCK_SIZE = 16  # values that torch fills together; fewer values than this are drawn in pairs


def torch_randn(shape: tuple[int, ...], seed: int) -> NDArray[np.float32]:
    """Returns `torch.randn(shape, generator=torch.Generator().manual_seed(seed))`, to about 1e-6.

    Args:
        shape: Shape of the result.
        seed: 0 to 2^64 - 1, of which the low 32 bits count.
    """
    (noise,) = torch_randn_sequence(shape, seed, 1)
    return noise


def torch_randn_sequence(shape: tuple[int, ...], seed: int, length: int) -> list[NDArray[np.float32]]:
    """Returns what so many calls of `torch.randn` give with one generator; see `torch_randn`."""
    count = math.prod(shape)
    generator = np.random.RandomState(seed & 0xFFFFFFFF)
    draw = _fill_blocks if count >= BLOCK_SIZE else _draw_pairs
    return [draw(generator, count).reshape(shape) for _ in range(length)]


def _fill_blocks(generator: np.random.RandomState, count: int) -> NDArray[np.float32]:
    """Fills blocks of 16. If the last block is incomplete, the last 16 values are drawn again, as torch does."""
    uniform = _draw_uniform(generator, count)
    whole = count - count % BLOCK_SIZE
    values = np.empty(count, np.float32)
    values[:whole] = _box_muller(uniform[:whole])
    if whole < count:
        values[-BLOCK_SIZE:] = _box_muller(_draw_uniform(generator, BLOCK_SIZE))
    return values


def _draw_uniform(generator: np.random.RandomState, count: int) -> NDArray[np.float32]:
    """Returns float32 values in [0, 1) of 24 bits, each from one 32-bit word."""
    bits = generator.randint(0, 2**32, count, np.uint32) & np.uint32(2**24 - 1)
    return bits.astype(np.float32) * np.float32(2**-24)


def _box_muller(uniform: NDArray[np.float32]) -> NDArray[np.float32]:
    """Transforms blocks; their first half gives the radii and becomes the cosines, the second half gives the angles."""
    radii, angles = uniform.reshape(-1, 2, BLOCK_SIZE // 2).swapaxes(0, 1)
    radius = np.sqrt(-2 * np.log(1 - radii))
    angle = np.float32(2 * math.pi) * angles
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).reshape(-1)


def _draw_pairs(generator: np.random.RandomState, count: int) -> NDArray[np.float32]:
    """Draws values in pairs, in float64; the uniform value of the angle comes before that of the radius."""
    angles, radii = _draw_uniform_double(generator, count + count % 2).reshape(-1, 2).T
    radius, angle = np.sqrt(-2 * np.log1p(-radii)), 2 * math.pi * angles
    pairs = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return pairs.reshape(-1)[:count].astype(np.float32)


def _draw_uniform_double(generator: np.random.RandomState, count: int) -> NDArray[np.float64]:
    """Returns float64 values in [0, 1) of 53 bits, each from two 32-bit words, the high one first."""
    high, low = generator.randint(0, 2**32, (count, 2), np.uint32).astype(np.uint64).T
    bits = (high << np.uint64(32) | low) & np.uint64(2**53 - 1)
    uniform: NDArray[np.float64] = bits.astype(np.float64) * 2.0**-53
    return uniform
