"""Quantizes a pipeline: what can be checked without torch comes first, then the run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..common.cluster_address import check_cluster
from ..common.errors import UserError
from ..common.memory import DEFAULT_MAX_MEMORY
from ..common.progress import Progress, no_progress
from ..recipes.schema import Recipe
from .preflight import check_inputs

if TYPE_CHECKING:
    from .result import QuantizeResult


def quantize_pipeline(
    recipe: Recipe,
    source: Path,
    output: Path,
    *,
    force: bool = False,
    restart: bool = False,
    max_memory: int = DEFAULT_MAX_MEMORY,
    device: str = "cpu",
    reuse: Sequence[Path] = (),
    check_later_stages: Callable[[], object] | None = None,
    ray: str | None = None,
    progress: Progress = no_progress,
) -> QuantizeResult:
    """Quantizes a pipeline folder and publishes it as `output/model` with `output/manifest.json`.

    An interrupted run is resumed, with the same result to the byte. An artifact that is already up to date is returned
    as it is. Warnings are logged, for example where unfinished work of another recipe cannot be used.

    Args:
        recipe: Schemes, method, components and calibration.
        source: A diffusers folder in its original precision.
        output: The artifact folder. Created where it does not exist.
        force: Replace an artifact that was made from something else, and remove what was exported from it.
        restart: Use neither unfinished work nor a finished artifact; start over.
        max_memory: Bytes that the run may take.
        device: Where PyTorch computes: `cpu`, `cuda`, `cuda:N`, or `auto` for a GPU if there is one.
        reuse: Artifacts whose text encoders are taken as they are, where their weights were the same.
        check_later_stages: Called once the inputs are checked: whether later stages can do with the result what the
            recipe says, and the device run it.
        ray: `HOST:PORT` of a Ray cluster whose machines take part, or `local` to start one on this machine.
        progress: Called with the stage, what is done of it, and the total.

    Raises:
        UserError: Invalid input, found before any long work; an artifact of other inputs without `force`; a full disk
            or missing permissions; another process that works on `output`.
    """
    if ray is not None and device != "cpu":
        raise UserError("A Ray cluster computes on processors alone. Leave out --device or --ray.")
    check_cluster(ray)
    inputs = check_inputs(recipe, source, output, reuse, device, force=force, restart=restart)
    if check_later_stages:
        check_later_stages()
    from .run import run_quantization

    return run_quantization(
        inputs, output, force=force, restart=restart, max_memory=max_memory, ray=ray, progress=progress
    )
