"""Makes the variants of a pipeline, each in a folder of its own that is kept: a run that was killed goes on."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ....common.progress import Progress
from ....export.onnx.exporter import export_onnx
from ....quantize.pipeline import quantize_pipeline
from ....recipes.schema import ExportSettings, Recipe
from . import tools
from .variants import BASE, EXTRA_SCHEMES, LINEARS, VARIANTS, Variant


@dataclass(frozen=True)
class ArtifactCache:
    """Where the variants of one pipeline are made, and how it is pressed: a recipe's `quantize` and `calibration`."""

    pipeline: Path
    folder: Path
    quantize: Mapping[str, Any]
    calibration: Mapping[str, Any]

    def build_all(self, variants: Sequence[Variant], progress: Progress) -> dict[str, Path]:
        """The folder of each variant's graphs, by name, with those that all are made from or held against."""
        names = {BASE, LINEARS, *(variant.name for variant in variants)}
        return {variant.name: self._build(variant, progress) for variant in VARIANTS if variant.name in names}

    def _build(self, variant: Variant, progress: Progress) -> Path:
        if variant.tool:
            return self._get_or_create(variant.name, lambda folder: self._run_tool(variant, folder)) / "onnx"
        source = self._quantize(variant.group_size, progress) if variant.group_size else self.pipeline
        settings = ExportSettings.model_validate(variant.settings)
        return (
            self._get_or_create(
                variant.name, lambda folder: export_onnx(source, folder, settings, verify=False, progress=progress)
            )
            / "onnx"
        )

    def _run_tool(self, variant: Variant, folder: Path) -> None:
        folder.mkdir()
        base, quantized = (self.folder / name / "onnx" for name in (BASE, LINEARS))
        tools.quantize(str(variant.tool), variant.options, base, quantized, folder / "onnx")

    def _quantize(self, group_size: int, progress: Progress) -> Path:
        """The pipeline pressed with groups of a size; those of 128 have the other solutions beside them."""
        options = {"scheme": {"group_size": group_size}, "also": EXTRA_SCHEMES if group_size == 128 else {}}
        content = {"device": "bench", "quantize": {**self.quantize, **options}, "calibration": self.calibration}
        recipe = Recipe.model_validate(content)
        return self._get_or_create(
            f"pressed-{group_size}", lambda folder: quantize_pipeline(recipe, self.pipeline, folder, progress=progress)
        )

    def _get_or_create(self, name: str, create: Callable[[Path], object]) -> Path:
        folder, new = self.folder / name, self.folder / f"{name}.new"
        if not folder.exists():
            shutil.rmtree(new, ignore_errors=True)
            create(new)
            new.rename(folder)
        return folder
