"""The integer format of a weight, as plain data: recipes name it, and reading a recipe must not import torch."""

from __future__ import annotations

from dataclasses import dataclass

GROUP_SIZES = (128, 64, 32)  # of AWQ's layout, the largest first
PACKED_OUTPUTS = 8  # channels in an int32 of AWQ's layout


def fit_group_size(group_size: int, in_features: int) -> int | None:
    """Returns the largest of `GROUP_SIZES` up to `group_size` that divides an input width; None if none does.

    Whoever reads a weight finds its groups in the same way, so that no file needs to list them.
    """
    return next((size for size in GROUP_SIZES if size <= group_size and not in_features % size), None)


def require_group_size(group_size: int, in_features: int) -> int:
    """Returns what `fit_group_size` finds.

    Raises:
        ValueError: No group size divides the input width.
    """
    fitting = fit_group_size(group_size, in_features)
    if fitting is None:
        raise ValueError(f"no group size up to {group_size} divides the input width {in_features}")
    return fitting


def can_be_packed(out_features: int, in_features: int) -> bool:
    """Whether AWQ's layout can hold a weight, with groups of some size."""
    if not out_features or not in_features:
        return False
    return not out_features % PACKED_OUTPUTS and fit_group_size(GROUP_SIZES[0], in_features) is not None


@dataclass(frozen=True)
class QuantSpec:
    """The integer format of one weight.

    Attributes:
        bits: Bits per code, 4 or 8.
        group_size: Input channels that share a scale; the input width quantizes per output channel.
        symmetric: Fixes every zero point at the middle code (8, or 128 with 8 bits).
        narrow_range: Leaves out the lowest code, so that the scale of a group is max|w| / 7 (127 with 8 bits). Needs
            `symmetric`.

    Raises:
        ValueError: `narrow_range` without `symmetric`.
    """

    bits: int = 4
    group_size: int = 128
    symmetric: bool = False
    narrow_range: bool = False

    def __post_init__(self) -> None:
        if self.narrow_range and not self.symmetric:
            raise ValueError("narrow_range needs symmetric=True")
