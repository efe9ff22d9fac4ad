"""Exports of weights that other programs load, with one call each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..common.arguments import check_arguments
from ..common.errors import UserError
from ..common.progress import Progress, no_progress
from ..common.requirements import requires_extra
from ..pipelines.hub import resolve_source
from ..recipes.loader import load_recipe
from ..recipes.schema import Recipe
from ..storage.layout import Artifact

if TYPE_CHECKING:
    from ..export.weights.publishing import WeightExportResult


@check_arguments
@requires_extra("gguf")
def export_gguf(
    recipe: Recipe | str | Path | None = None,
    *,
    model: str | Path | None = None,
    output: str | Path | None = None,
    type: Literal["q4_0", "q4_1", "q8_0"] | None = None,  # noqa: A002
    components: str | Sequence[str] = (),
    progress: Progress = no_progress,
) -> WeightExportResult:
    """Exports a quantized pipeline to one GGUF file for each component, in `output/gguf`.

    Codes and scales are carried over, not rounded again.

    Args:
        recipe: As for `quantize`; its device names the artifact. None if, and only if, `output` is given.
        model: A quantized diffusers folder or an artifact; default: the artifact in `output`.
        output: The artifact's folder; default: `artifacts/<device>`.
        type: `q4_0` takes a symmetric 4-bit solution, `q8_0` one in 8 bits, `q4_1` the model's own codes. Default:
            those, as Q4_0 where they are symmetric.
        components: Components to export; empty: transformer and text encoder.
        progress: Called with a stage, what is done and the total.

    Returns:
        The published folder, and what is in it. `print` shows both.

    Raises:
        UserError: Bad input, an artifact without what the type needs, a family without names for GGUF, or a package
            that is missing.
    """
    source, target = _resolve_folders(recipe, model, output)
    from ..export.gguf.exporter import export_gguf as export

    names = (components,) if isinstance(components, str) else components
    return export(source, target, type=type, components=names, progress=progress)


@check_arguments
@requires_extra("quantize")
def export_diffusers(
    recipe: Recipe | str | Path | None = None,
    *,
    model: str | Path | None = None,
    output: str | Path | None = None,
    progress: Progress = no_progress,
) -> WeightExportResult:
    """Exports a quantized pipeline to a folder for stock diffusers and auto-round, in `output/diffusers`.

    Args:
        recipe: As for `quantize`; its device names the artifact. None if, and only if, `output` is given.
        model: A quantized diffusers folder or an artifact; default: the artifact in `output`.
        output: The artifact's folder; default: `artifacts/<device>`.
        progress: Called with a stage, what is done and the total.

    Returns:
        The published folder, and what is in it. `print` shows both.

    Raises:
        UserError: Bad input, or a pipeline that is not quantized to 4 bits.
    """
    source, target = _resolve_folders(recipe, model, output)
    from ..export.diffusers.exporter import export_diffusers as export

    return export(source, target, progress=progress)


@check_arguments
@requires_extra("quantize")
def export_comfyui(
    recipe: Recipe | str | Path | None = None,
    *,
    model: str | Path | None = None,
    output: str | Path | None = None,
    progress: Progress = no_progress,
) -> WeightExportResult:
    """Exports a quantized pipeline to a file with ComfyUI's layout for 4-bit weights, in `output/comfyui`.

    Args:
        recipe: As for `quantize`; its device names the artifact. None if, and only if, `output` is given.
        model: A quantized diffusers folder or an artifact; default: the artifact in `output`.
        output: The artifact's folder; default: `artifacts/<device>`.
        progress: Called with a stage, what is done and the total.

    Returns:
        The published folder, and what is in it. `print` shows both.

    Raises:
        UserError: Bad input, or a family without names for single files.
    """
    source, target = _resolve_folders(recipe, model, output)
    from ..export.comfyui.exporter import export_comfyui as export

    return export(source, target, progress=progress)


@check_arguments
@requires_extra("quantize")
def export_compressed_tensors(
    recipe: Recipe | str | Path | None = None,
    *,
    model: str | Path | None = None,
    output: str | Path | None = None,
    progress: Progress = no_progress,
) -> WeightExportResult:
    """Exports text encoders for transformers with compressed-tensors, in `output/compressed-tensors`.

    Args:
        recipe: As for `quantize`; its device names the artifact. None if, and only if, `output` is given.
        model: A quantized diffusers folder or an artifact; default: the artifact in `output`.
        output: The artifact's folder; default: `artifacts/<device>`.
        progress: Called with a stage, what is done and the total.

    Returns:
        The published folder, and what is in it. `print` shows both.

    Raises:
        UserError: Bad input, or a pipeline whose text encoders are not quantized to 4 bits.
    """
    source, target = _resolve_folders(recipe, model, output)
    from ..export.compressed_tensors.exporter import export_compressed_tensors as export

    return export(source, target, progress=progress)


def _resolve_folders(
    recipe: Recipe | str | Path | None, model: str | Path | None, output: str | Path | None
) -> tuple[Path, Path]:
    """The folder to export, and the artifact to export to.

    Raises:
        UserError: Neither a recipe nor an output is given, or both are.
    """
    if recipe is None and output is None:
        raise UserError("Give --recipe or --output: the artifact to export.")
    if recipe is not None and output is not None:
        raise UserError(f"--output {output} names the artifact to export, and so does --recipe. Give one of them.")
    if output is not None:
        target = Path(output)
    else:
        loaded = load_recipe(recipe) if isinstance(recipe, str | Path) else recipe
        assert loaded is not None
        target = Artifact.of_device(loaded.device).path
    return resolve_source(model) if model is not None else target, target
