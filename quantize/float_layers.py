"""Says which linears of a quantized block stay in floating point, and why."""

from __future__ import annotations

import logging

from .plan import QuantBlock
from .solver.block import BlockResult

logger = logging.getLogger(__name__)


def warn_about_floats(block: QuantBlock, result: BlockResult) -> None:
    """Logs the linears that stay in floating point: nothing ran them, or float16 cannot hold their scales."""
    idle = {f"{block.name}.{linear}" for linear in block.idle}
    if idle:
        logger.warning(
            "%s: no prompt of the calibration reached these layers, which stay in floating point: %s.",
            block.name,
            ", ".join(block.idle),
        )
    for layer in result.layers:
        if layer.stays_float and layer.layer not in idle:
            logger.warning(
                "%s stays in floating point: its weights are so large or so small that float16 cannot hold the scales "
                "of their 4-bit codes.",
                layer.layer,
            )
