"""What quantizing a block reads from a calibration, also as it would be after powers of two have moved in the block."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from ..algorithms.fp16_scales import shift_abs_max
from ..plan import ComponentPlan, QuantBlock


class CalibrationSource(Protocol):
    """What quantizing a block reads from a calibration."""

    @property
    def abs_max_by_module(self) -> dict[str, float]: ...

    def mean_abs(self, name: str) -> Tensor: ...

    def hessian(self, block: QuantBlock, name: str, centered: bool = False) -> Tensor: ...

    def mean(self, block: QuantBlock, name: str) -> Tensor: ...

    def abs_max(self, name: str) -> Tensor: ...

    def tokens(self, block: QuantBlock, name: str) -> Tensor: ...

    def validation_tokens(self, block: QuantBlock, name: str, centered: bool = False) -> Tensor | None: ...


@dataclass(frozen=True)
class BalancedCalibration:
    """A calibration as if a block's balanced weights had run: powers of two moved between its operations.

    Attributes:
        source: The calibration of the weights as stored.
        component: The component of the block.
        block: The block.
        exponents: What `balance_weights` returned.
    """

    source: CalibrationSource
    component: ComponentPlan
    block: QuantBlock
    exponents: Mapping[str, int]

    @property
    def abs_max_by_module(self) -> dict[str, float]:
        return shift_abs_max(self.source.abs_max_by_module, self.block, self.exponents)

    def mean_abs(self, name: str) -> Tensor:
        return self.source.mean_abs(name) * self._factor(name)

    def hessian(self, block: QuantBlock, name: str, centered: bool = False) -> Tensor:
        return self.source.hessian(block, name, centered) * self._factor(name) ** 2

    def mean(self, block: QuantBlock, name: str) -> Tensor:
        return self.source.mean(block, name) * self._factor(name)

    def abs_max(self, name: str) -> Tensor:
        return self.source.abs_max(name) * self._factor(name)

    def tokens(self, block: QuantBlock, name: str) -> Tensor:
        return self.source.tokens(block, name) * self._factor(name)

    def validation_tokens(self, block: QuantBlock, name: str, centered: bool = False) -> Tensor | None:
        tokens = self.source.validation_tokens(block, name, centered)
        return None if tokens is None else tokens * self._factor(name)

    def _factor(self, name: str) -> float:
        """What the input of a group's linears is multiplied by."""
        groups = {f"{self.component.name}.{self.block.input_module(group)}": group for group in self.block.groups}
        fold = groups[name].fold
        return 2.0 ** -self.exponents.get(fold.prev_op, 0) if fold else 1.0


def get_exponents(calibration: CalibrationSource) -> Mapping[str, int]:
    """The exponent k by whose power of two the output of each fold's `prev_op` was divided, by `prev_op`."""
    return calibration.exponents if isinstance(calibration, BalancedCalibration) else {}
