"""Calibration: one reference run over the prompts collects the statistics of every quantized layer's input."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..checkpoint import write_tensors
from ..errors import UserError
from ..progress import Progress
from ..prompts import Prompt
from ..sampling import Sampling, batches, load_pipeline, sample
from .plan import Plan
from .statistics import Statistics
from .work import Work

STAGE = "calibrating"
SAVE_EVERY = 20.0  # seconds; a killed calibration loses at most this and one batch

Table = dict[str, Statistics]  # "component.module" -> statistics of its input


def calibrate(
    plan: Plan, work: Work, prompts: Sequence[Prompt], sampling: Sampling, dtype: torch.dtype, progress: Progress
) -> Table:
    """Statistics of every input that the plan needs, over all prompts and all denoising steps.

    Goes on from what an interrupted run stored in `work`; sums are added in the same order, so that the result is the
    same to the bit.
    """
    table, done = _restore(work)
    parts = list(batches(prompts, sampling.batch))
    progress(STAGE, sum(len(part) for part in parts[:done]), len(prompts))
    if done == len(parts):
        return table
    pipeline = load_pipeline(plan.source, dtype)
    with _watching(pipeline, plan, table) as position:
        saved = time.monotonic()
        for number in range(done, len(parts)):
            position["batch"] = number
            sample(pipeline, parts[number], sampling)
            if number + 1 == len(parts) or time.monotonic() - saved > SAVE_EVERY:
                _store(work, table, number + 1)
                saved = time.monotonic()
            progress(STAGE, sum(len(part) for part in parts[: number + 1]), len(prompts))
    return table


@contextmanager
def _watching(pipeline: Any, plan: Plan, table: Table) -> Iterator[dict[str, int]]:
    """Adds the inputs of the plan's layers to the table while the pipeline runs."""
    position = {"batch": 0}
    handles = []
    for component in plan.components:
        model: nn.Module = getattr(pipeline, component.name)
        mask: dict[str, Tensor | None] = {"tokens": None}
        handles.append(model.register_forward_pre_hook(_mask_hook(mask), with_kwargs=True))
        for unit in component.units:
            for fold in unit.block.folds:
                path = unit.input_of(fold)
                hook = _input_hook(table, f"{component.name}.{path}", mask, position)
                handles.append(model.get_submodule(path).register_forward_pre_hook(hook))
    try:
        yield position
    finally:
        for handle in handles:
            handle.remove()


def _mask_hook(mask: dict[str, Tensor | None]) -> Any:
    """Remembers which tokens of a padded text batch are real; the pipeline throws the others away."""

    def hook(_: nn.Module, __: Any, kwargs: dict[str, Any]) -> None:
        given = kwargs.get("attention_mask")
        mask["tokens"] = given.bool() if isinstance(given, Tensor) and given.ndim == 2 else None

    return hook


def _input_hook(table: Table, name: str, mask: dict[str, Tensor | None], position: dict[str, int]) -> Any:
    def hook(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        x = args[0].detach()
        tokens = x[mask["tokens"]] if mask["tokens"] is not None else x.reshape(-1, x.shape[-1])
        if name not in table:
            table[name] = Statistics.empty(name, x.shape[-1])
        table[name].add(tokens, position["batch"])

    return hook


def _store(work: Work, table: Table, done: int) -> None:
    _check(table)
    tensors = {key: tensor for statistics in table.values() for key, tensor in statistics.tensors().items()}
    write_tensors(tensors | {"done": torch.tensor(done)}, work.statistics)


def _restore(work: Work) -> tuple[Table, int]:
    if not work.statistics.exists():
        return {}, 0
    stored = work.read(work.statistics)
    names = [key.removesuffix("/count") for key in stored if key.endswith("/count")]
    return {name: Statistics.restore(name, stored) for name in names}, int(stored["done"])


def _check(table: Table) -> None:
    """Raises UserError where statistics cannot be used; they are then never stored."""
    for name, statistics in table.items():
        if not statistics.count:
            raise UserError(f"No token reached {name} in calibration; check the tokenizer folder of the model.")
        if not torch.isfinite(statistics.mean_gram()).all():
            raise UserError(
                f"The reference run gave NaN or infinite activations at the input of {name}; "
                "set dtype: float32 or bfloat16 in the recipe, and check that the model is sound."
            )
