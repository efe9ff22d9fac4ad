"""`edgepress export`: what is made of a pipeline for runtimes on devices, one command a format."""

from __future__ import annotations

import click

from .export_onnx import onnx
from .export_rknn import rknn


@click.group()
def export() -> None:
    """Turn a pipeline into what a device's runtime reads."""


export.add_command(onnx)
export.add_command(rknn)
