"""Refuses what graphs return that is not finite: an image of it would be black, flat or noise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..common.errors import UserError
from ..models.base.host import RunGraph


def require_finite_outputs(run: RunGraph, stage: str, folder: Path) -> RunGraph:
    """Returns a function that runs graphs as `run` does, and raises UserError where an output is not finite.

    Args:
        run: Runs the graphs.
        stage: What they are run for, such as `denoising`.
        folder: The folder of the export.
    """

    def run_checked(name: str, inputs: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
        output = run(name, inputs)
        if not np.isfinite(output).all():
            kind = "NaN" if np.isnan(output).any() else "infinite values"
            raise UserError(
                f"No image can be made with {folder}: the output of {name} has {kind} while {stage}. Check the files "
                f"with 'edgepress verify {folder}', or export the artifact again in another precision."
            )
        return output

    return run_checked
