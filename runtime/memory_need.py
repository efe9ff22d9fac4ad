"""How much memory the graphs of an artifact and an image take here, and whether all graphs are loaded at once."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from ..common.errors import UserError
from ..common.system_memory import check_memory, read_available_memory, read_memory_limit
from ..models.base.image_size import Configs, estimate_min_memory
from ..storage.files import read_json_object
from ..storage.layout import DESCRIPTION_NAME, Artifact
from ..storage.pipeline_config import is_rknn_export
from .malformed import reject_malformed

GRAPH_SUFFIXES = (".onnx", ".safetensors", ".rknn")
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class MemoryNeed:
    """The memory that the graphs of an export take.

    Attributes:
        resident_bytes: With all graphs loaded.
        phased_bytes: With one graph loaded at a time.
        is_planned: Whether the artifact's memory plan says so, with activations; else these are the sizes of files.
        usable_bytes: What a program can use on the device by the plan; None if that is not known.
    """

    resident_bytes: int
    phased_bytes: int
    is_planned: bool
    usable_bytes: int | None = None


def read_memory_need(folder: Path) -> MemoryNeed:
    """Reads what the graphs of an exported folder take: from the plan of its artifact, or from the sizes of its files.

    The plan is that of the ONNX graphs. Parts for an NPU have another precision, so their files say what they take.

    Raises:
        UserError: The artifact's description cannot be read.
    """
    description = Artifact.containing(folder).path / DESCRIPTION_NAME
    plan = read_json_object(description).get("memory_plan") if description.exists() else None
    if plan and not is_rknn_export(folder):
        usable = plan.get("usable_bytes")
        return MemoryNeed(int(plan["resident_bytes"]), int(plan["phased_bytes"]), True, usable)
    sizes: Counter[str] = Counter()
    for file in folder.iterdir():
        if file.suffix in GRAPH_SUFFIXES:  # weights of a component are split into files such as transformer-00001-of-…
            sizes[file.name.partition(".")[0].partition("-")[0]] += file.stat().st_size
    return MemoryNeed(sizes.total(), max(sizes.values(), default=0), is_planned=False)


def choose_keep_loaded(folder: Path) -> bool:
    """Whether all graphs of an exported folder fit into the memory that is free now; logs a line if they do not."""
    need, free = read_memory_need(folder), _read_free_memory()
    if free is None or need.resident_bytes <= free:
        return True
    logger.warning(
        "Graphs are loaded one at a time, which takes longer: all take %.1f GiB%s, and %.1f GiB are free.",
        need.resident_bytes / 2**30, " by the artifact's memory plan" if need.is_planned else "", free / 2**30,
    )  # fmt: skip
    return False


def require_memory(folder: Path, keep_loaded: bool) -> None:
    """Refuses to load graphs that do not fit into the memory that is free now.

    Where CPU and GPU share their memory, neither the kernel's killer nor a service's limit sees what the GPU takes: a
    board that loads too much stops to answer.

    Args:
        folder: The exported folder.
        keep_loaded: Whether all graphs are loaded at once.

    Raises:
        UserError: They do not fit.
    """
    need, free = read_memory_need(folder), _read_free_memory()
    needed = need.resident_bytes if keep_loaded else need.phased_bytes
    if free is None or needed <= free:
        return
    raise UserError(
        f"The graphs in {folder} take {needed / 2**30:.1f} GiB of memory, but only {free / 2**30:.1f} GiB are free. "
        "Close other programs."
    )


def check_image_memory(
    folder: Path, configs: Configs, size: tuple[int, int], decodes_whole: bool, encodes: bool
) -> None:
    """Checks that there can be enough memory for an image.

    Args:
        folder: The exported folder, which messages name.
        configs: Configs of the components, by folder name.
        size: Height and width in pixels.
        decodes_whole: Whether the VAE decodes the image as a whole, not in tiles.
        encodes: Whether it starts from an image, which is encoded as a whole and takes as much.

    Raises:
        UserError: There cannot be, or the configs are corrupt.
    """
    with reject_malformed(folder):
        needed = estimate_min_memory(configs, *size, decodes_whole or encodes)
    has_choice = decodes_whole and not encodes
    advice = "Choose a smaller size, or decode in tiles." if has_choice else "Choose a smaller size."
    check_memory(needed, f"An image of {size[0]}x{size[1]}", advice)


def _read_free_memory() -> int | None:
    """Bytes that this process can have now; None if the system does not tell."""
    sizes = (read_available_memory(), read_memory_limit())
    return min((size for size in sizes if size is not None), default=None)
