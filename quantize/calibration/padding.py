"""Text encoders without most of their padding: prompts are padded to hundreds of tokens of which few are real.

Real tokens never read padding that a mask excludes, so that their statistics stay the same. Some columns of padding run
along, because their activations count for the largest values of layers. Where these decide whether float16 can hold
everything (`fp16_safe`), nothing may be left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

PADDING_COLUMNS = 16  # that stay after the last real token of a batch


@contextmanager
def without_padding(*models: nn.Module) -> Iterator[None]:
    """Shortens what models read to their real tokens and `PADDING_COLUMNS` of padding, and pads what they return."""
    with ExitStack() as stack:
        for model in models:
            trimming = _Trimming()
            pre_hook = model.register_forward_pre_hook(trimming.shorten, with_kwargs=True)
            for handle in (pre_hook, model.register_forward_hook(trimming.pad)):
                stack.callback(handle.remove)
        yield


class _Trimming:
    """One model's calls.

    Attributes:
        size: The size of the tokens that the running call was given, (batch, tokens); None if it is not shortened.
        length: Number of tokens that it computes.
    """

    def __init__(self) -> None:
        self.size: torch.Size | None = None
        self.length = 0

    def shorten(
        self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        self.size, mask = None, kwargs.get("attention_mask")
        tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
        if not isinstance(mask, Tensor) or mask.ndim != 2 or any(tensor.shape != mask.shape for tensor in tensors):
            return args, kwargs
        real_columns = mask.any(0).nonzero()
        self.length = PADDING_COLUMNS + (int(real_columns.max()) + 1 if len(real_columns) else 0)
        if self.length >= mask.shape[1]:
            return args, kwargs
        self.size = mask.shape
        return tuple(map(self._cut, args)), {name: self._cut(value) for name, value in kwargs.items()}

    def _cut(self, value: Any) -> Any:
        return value[:, : self.length] if isinstance(value, Tensor) else value

    def pad(self, _: nn.Module, __: Any, output: Any) -> Any:
        return output if self.size is None else self._pad(output)

    def _pad(self, output: Any) -> Any:
        """Repeats the last column of every tensor (batch, tokens, ...) in an output."""
        if isinstance(output, Tensor):
            if self.size is None or output.shape[:2] != (self.size[0], self.length):
                return output
            last = output[:, -1:].expand(-1, self.size[1] - self.length, *output.shape[2:])
            return torch.cat([output, last], 1)
        if isinstance(output, dict):  # as transformers' outputs are
            for name, value in list(output.items()):
                output[name] = self._pad(value)
            return output
        return tuple(map(self._pad, output)) if isinstance(output, tuple) else output
