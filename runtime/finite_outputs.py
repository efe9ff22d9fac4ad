"""Refuses what graphs return that is not finite: an image of it would be black, flat or noise."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..common.errors import UserError
from ..models.base.host import GraphRunner, RunGraph


def require_finite_outputs(run: RunGraph, stage: str, folder: Path) -> RunGraph:
    """Returns what runs graphs as `run` does, and raises UserError where an output is not finite.

    Args:
        run: Runs the graphs.
        stage: What they are run for, such as `denoising`.
        folder: The folder of the export.
    """

    def run_checked(name: str, inputs: dict[str, NDArray[Any]]) -> Sequence[NDArray[np.float32]]:
        outputs = run.run(name, inputs)
        for output in outputs:
            if not np.isfinite(output).all():
                kind = "NaN" if np.isnan(output).any() else "infinite values"
                raise UserError(
                    f"No image can be made with {folder}: the output of {name} has {kind} while {stage}. Check the "
                    f"files with 'edgepress verify {folder}', or export the artifact again in another precision."
                )
        return outputs

    return GraphRunner(run_checked)
