"""Creates the variants of a pipeline, each in its own folder. Existing folders are reused, so that a run can resume."""

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
from .onnxruntime_quantizers import quantize_graphs
from .variants import BASE, EXTRA_SCHEMES, LINEARS, VARIANTS, Variant


@dataclass(frozen=True)
class ArtifactCache:
    """The variants of one pipeline.

    Attributes:
        pipeline: The original pipeline.
        folder: Folder of all variants.
        quantize: `quantize` settings of the recipe.
        calibration: `calibration` settings of the recipe.
    """

    pipeline: Path
    folder: Path
    quantize: Mapping[str, Any]
    calibration: Mapping[str, Any]

    def build_all(self, variants: Sequence[Variant], progress: Progress) -> dict[str, Path]:
        """Creates variants, and those that they are made from or compared with; returns their ONNX folders by name."""
        names = {BASE, LINEARS, *(variant.name for variant in variants)}
        return {variant.name: self._build(variant, progress) for variant in VARIANTS if variant.name in names}

    def _build(self, variant: Variant, progress: Progress) -> Path:
        if variant.tool:
            return self._get_or_create(variant.name, lambda folder: self._run_tool(variant, folder)) / "onnx"
        source = self._quantize(variant.group_size, progress) if variant.group_size else self.pipeline
        settings = ExportSettings.model_validate(variant.settings)
        export = lambda folder: export_onnx(source, folder, settings, verify=False, progress=progress)  # noqa: E731
        return self._get_or_create(variant.name, export) / "onnx"

    def _run_tool(self, variant: Variant, folder: Path) -> None:
        folder.mkdir()
        base, quantized = (self.folder / name / "onnx" for name in (BASE, LINEARS))
        quantize_graphs(str(variant.tool), variant.options, base, quantized, folder / "onnx")

    def _quantize(self, group_size: int, progress: Progress) -> Path:
        """Quantizes the pipeline with a group size; with 128, with the extra schemes as well."""
        schemes = {"scheme": {"group_size": group_size}, "extra_schemes": EXTRA_SCHEMES if group_size == 128 else {}}
        content = {"device": "bench", "quantize": {**self.quantize, **schemes}, "calibration": self.calibration}
        recipe = Recipe.model_validate(content)
        quantize = lambda folder: quantize_pipeline(recipe, self.pipeline, folder, progress=progress)  # noqa: E731
        return self._get_or_create(f"quantized-{group_size}", quantize)

    def _get_or_create(self, name: str, create: Callable[[Path], object]) -> Path:
        folder, new = self.folder / name, self.folder / f"{name}.new"
        if not folder.exists():
            shutil.rmtree(new, ignore_errors=True)
            create(new)
            new.rename(folder)
        return folder
