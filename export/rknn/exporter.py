"""Exports a pipeline to parts for the NPU of a Rockchip board, published as one folder.

What can be checked without torch comes first, then its import.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...common.progress import Progress, no_progress
from ...recipes.schema import Recipe
from ...runtime.rknn.toolkit import Toolkit
from ...storage.layout import SIMULATOR_FOLDER, Artifact
from ...storage.publishing import artifact_lock, publish_folder, staging_folder
from .preflight import check_inputs, open_quantized
from .settings import require_rknn_settings

if TYPE_CHECKING:
    from .building.builder import BuiltPart


@dataclass(frozen=True)
class RknnExportResult:
    """The result of an export. `str()` gives a summary.

    Attributes:
        folder: The published folder.
        parts: The built parts, by name.
        image_psnr: PSNR to torch's image in dB, of the "float" and of the "simulated" parts; None: the image is equal.
            Empty if no image was generated.
    """

    folder: Path
    parts: Mapping[str, BuiltPart]
    image_psnr: Mapping[str, float | None]

    def __str__(self) -> str:
        width = max(map(len, self.parts), default=0)
        lines = [
            f"  {name:{width}}  {part.precision:5}  {len(part.measurement.build_log.layers)} layers on the NPU, "
            f"relative error {part.measurement.relative_error:.2g}, cosine {part.measurement.cosine:.5f}"
            for name, part in self.parts.items()
        ]
        for name, psnr in self.image_psnr.items():
            lines.append(f"  {name} image: " + ("equal to torch's" if psnr is None else f"{psnr:.1f} dB PSNR"))
        return "\n".join([f"RKNN parts in {self.folder}, simulated and not verified on a board:", *lines])


def export_rknn(
    source: Path,
    output: Path,
    recipe: Recipe,
    *,
    components: Sequence[str] = (),
    progress: Progress = no_progress,
    timeout_s: float = 3600,
) -> RknnExportResult:
    """Exports a pipeline to `output/rknn`. An older export is replaced; after an error it is left unchanged.

    Args:
        source: A diffusers folder or an artifact folder.
        output: Artifact folder. 4- and 8-bit solutions come from its folder `model`, if there is one.
        recipe: A recipe with a section `rknn`.
        components: Components to export; empty: all, and then the board must have the memory for them.
        progress: Called with the stages of the export.
        timeout_s: Time that the toolkit may take for a part, in seconds.

    Returns:
        The published folder, its parts, and how close they are to floats.

    Raises:
        UserError: The input is invalid, the toolkit is missing, or the board cannot hold the parts (all checked before
            anything is written); or a part or the image is too far from its reference.
    """
    settings = require_rknn_settings(recipe)
    model = check_inputs(source, output, settings, components)
    for source_pipeline in (model, open_quantized(model, Path(output))):
        source_pipeline.check_recorded(progress)
    from .planning.estimator import make_memory_plan
    from .prepare import prepare_job
    from .run import RknnExporter

    if not components:
        make_memory_plan(model, recipe).require_recipe_fits()
    job = prepare_job(model, output, settings, components)
    with artifact_lock(output) as work, staging_folder(work, "rknn") as stage:
        (stage / SIMULATOR_FOLDER).mkdir()
        with staging_folder(work, "toolkit") as toolkit_folder, Toolkit(timeout_s, toolkit_folder) as toolkit:
            parts, image_psnr = RknnExporter(job, stage, toolkit, progress, recipe.presets, recipe.runtime).run()
        publish_folder(stage, Artifact(output).rknn)
    return RknnExportResult(Artifact(output).rknn, parts, image_psnr)
