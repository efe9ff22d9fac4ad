"""`edgepress export`: what a device's runtime reads, one command per format."""

from __future__ import annotations

import click

from .export_onnx import onnx
from .export_rknn import rknn


@click.group()
def export() -> None:
    """Export a pipeline for a runtime."""


export.add_command(onnx)
export.add_command(rknn)
