"""`edgepress export`: what a device's runtime reads, one command per format."""

from __future__ import annotations

import click

from .command import Group
from .lazy_commands import LazyCommands

FORMATS = {
    name: f"export_{name.replace('-', '_')}"
    for name in ("comfyui", "compressed-tensors", "diffusers", "gguf", "onnx", "rknn")
}


@click.group(cls=Group, commands=LazyCommands(FORMATS))
def export() -> None:
    """Export a pipeline for a runtime."""
