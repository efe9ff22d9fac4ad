"""Pipelines that optimum-onnx or optimum-intel exported: a diffusers folder with graphs in place of weights.

Both packages have classes that run such a folder with the interface of diffusers, so that noise is fed as to any other
pipeline. They are loaded where they go with the installed transformers.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from ..common.errors import UserError, summarize_error
from ..common.telemetry import openvino_telemetry_disabled
from ..storage.layout import is_pipeline


@dataclass(frozen=True)
class OptimumFormat:
    """A format of graphs.

    Attributes:
        graph: The file of a component's graph.
        suffixes: What the names of files with weights end with.
        distribution: What is installed with pip.
        forks: Distributions of the same package, for other releases of transformers.
        module: The module with the class that runs a pipeline.
        pipeline_class: That class.
    """

    graph: str
    suffixes: tuple[str, ...]
    distribution: str
    module: str
    pipeline_class: str
    forks: tuple[str, ...] = ()

    def list_distributions(self) -> tuple[str, ...]:
        """The distributions of the package that are installed."""
        names = {distribution.name for distribution in metadata.distributions()}
        return tuple(name for name in (self.distribution, *self.forks) if name in names)


FORMATS = (
    OptimumFormat(
        "model.onnx",
        (".onnx", ".onnx_data", ".onnx.data"),
        "optimum-onnx",
        "optimum.onnxruntime",
        "ORTDiffusionPipeline",
        ("optimum-onnx-naf",),
    ),
    OptimumFormat("openvino_model.xml", (".xml", ".bin"), "optimum-intel", "optimum.intel", "OVDiffusionPipeline"),
)


def find_optimum_format(folder: Path) -> OptimumFormat | None:
    """The format of a pipeline folder's graphs; None if it has weights, or is no pipeline."""
    if not is_pipeline(folder):
        return None
    return next((form for form in FORMATS if any(folder.glob(f"*/{form.graph}"))), None)


def require_optimum(folder: Path) -> Any:
    """The class that runs a pipeline's graphs.

    Raises:
        UserError: Its package is missing, or cannot be imported beside the installed libraries.
    """
    form = find_optimum_format(folder)
    if form is None:
        raise UserError(f"{folder} has no graphs of optimum. Give another folder.")
    try:
        with openvino_telemetry_disabled():
            return getattr(importlib.import_module(form.module), form.pipeline_class)
    except (ImportError, RuntimeError, AttributeError) as error:
        if isinstance(error, ModuleNotFoundError) and str(error.name or "").startswith("optimum"):
            raise UserError(
                f"{folder} holds graphs of {form.distribution}, which is not installed. Run: pip install "
                f"{form.distribution}"
            ) from error
        raise UserError(
            f"{folder} holds graphs of {form.distribution}, which cannot be imported beside transformers "
            f"{metadata.version('transformers')} ({summarize_error(error)}). Run the pipeline in an environment of its "
            "own, behind OpenAI's POST /v1/images/generations, and give its address."
        ) from error


def load_optimum_pipeline(folder: Path) -> Any:
    """Loads a pipeline with its graphs.

    Raises:
        UserError: As for `require_optimum`, or the package cannot load the folder.
    """
    pipeline_class = require_optimum(folder)
    try:
        pipeline = pipeline_class.from_pretrained(folder)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{pipeline_class.__name__} cannot load {folder} ({summarize_error(error)}). Export it again."
        ) from error
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def sum_graph_bytes(folder: Path) -> int:
    """Bytes of all graphs and their weights."""
    form = find_optimum_format(folder)
    files = folder.glob("*/*") if form else ()
    return sum(file.stat().st_size for file in files if form and file.name.endswith(form.suffixes))
