"""`edgepress export`: what a device's runtime reads, one command per format."""

from __future__ import annotations

import click

from .command import Group
from .export_comfyui import comfyui
from .export_compressed_tensors import compressed_tensors
from .export_diffusers import diffusers
from .export_gguf import gguf
from .export_onnx import onnx
from .export_rknn import rknn


@click.group(cls=Group)
def export() -> None:
    """Export a pipeline for a runtime."""


export.add_command(comfyui)
export.add_command(compressed_tensors)
export.add_command(diffusers)
export.add_command(gguf)
export.add_command(onnx)
export.add_command(rknn)
