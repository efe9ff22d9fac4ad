"""`--provider` and `--threads`: what runs graphs, and how many threads of it."""

from __future__ import annotations

from pathlib import Path

import click

from ..common.errors import UserError
from ..recipes.execution import MAX_THREADS
from .options import F
from .parameter_types import WholeNumber


def provider_option(function: F, variable: str | None = None) -> F:
    """Adds `--provider NAME`, which may be repeated.

    Args:
        function: The command.
        variable: An environment variable that sets it too.
    """
    default = f"${variable}, or CPU" if variable else "CPU"
    return click.option(
        "--provider",
        "providers",
        multiple=True,
        metavar="NAME",
        envvar=variable,
        help=f"ONNX Runtime execution provider, such as CUDA, or auto; may be repeated.  [default: {default}]",
    )(function)


def threads_option(function: F) -> F:
    """Adds `--threads N`, which EDGEPRESS_THREADS sets too."""
    return click.option(
        "--threads",
        type=WholeNumber(0, MAX_THREADS),
        envvar="EDGEPRESS_THREADS",
        help="Threads on the CPU; 0: as its engine chooses.  [default: $EDGEPRESS_THREADS, or the recipe's]",
    )(function)


def require_no_npu(artifact: Path, option: str = "--provider") -> None:
    """Checks that an artifact for which the user chose what runs its graphs has graphs.

    Args:
        artifact: The artifact.
        option: The option that the user gave.

    Raises:
        UserError: It holds parts for an NPU.
    """
    from ..runtime.rknn.exported import is_rknn_artifact

    if is_rknn_artifact(artifact):
        runner = "ONNX Runtime" if option == "--provider" else "another engine"
        raise UserError(f"{artifact} holds parts for an NPU, which {runner} does not run. Remove {option}.")
