"""Scales that fold in denoisers, whichever family has them.

Their modulation adds a shift behind norms, so that nothing folds there, and what follows an activation is not linear.
What remains are values, which attention only averages, and the half of a gated feed-forward that its gate multiplies.
"""

from __future__ import annotations

from typing import Any

from ..base.family import NOT_SCALED, Fold

MODULE = "edgepress.models.shared.denoiser_folds"
# Of attention over two streams at once: tokens of each read values of both.
JOINT_VALUE_FOLD = Fold(
    "attn.to_v", ("attn.to_out.0",), "rows", joint_prev_op="attn.add_v_proj", joint_linears=("attn.to_add_out",)
)


def list_first_half(_: dict[str, Any], width: int) -> list[int]:
    """A linear makes the values first, and then their gate."""
    return list(range(width))


def list_second_half(_: dict[str, Any], width: int) -> list[int]:
    """A linear makes the gate first, and then the values."""
    return list(range(width, 2 * width))


def list_attention_values(config: dict[str, Any], width: int) -> list[int]:
    """A linear reads what attention returns, and behind it what another one and an activation made."""
    values = _count_values(config)
    return [*range(values), *[NOT_SCALED] * (width - values)]


def list_fused_values(config: dict[str, Any], width: int) -> list[int]:
    """One linear makes queries, keys, values, a gate and what it multiplies; another one reads what becomes of them."""
    values = _count_values(config)
    hidden = width - values
    return [*range(2 * values, 3 * values), *range(3 * values + hidden, 3 * values + 2 * hidden)]


def _count_values(config: dict[str, Any]) -> int:
    heads, head_width = config["num_attention_heads"], config["attention_head_dim"]
    return int(heads) * int(head_width)
