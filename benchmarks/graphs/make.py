"""Makes the variants of a pipeline, each in a folder of its own that is kept: a run that was killed goes on."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...export.onnx.export import export
from ...progress import Progress
from ...quantize.press import press
from ...recipe import Export, Recipe
from . import tools
from .variants import ALSO, BASE, LINEARS, VARIANTS, Variant


@dataclass(frozen=True)
class Workshop:
    """Where the variants of one pipeline are made, and how it is pressed: a recipe's `quantize` and `calibration`."""

    pipeline: Path
    folder: Path
    quantize: Mapping[str, Any]
    calibration: Mapping[str, Any]

    def made(self, variants: Sequence[Variant], progress: Progress) -> dict[str, Path]:
        """The folder of each variant's graphs, by name, with those that all are made from or held against."""
        wanted = {BASE, LINEARS, *(variant.name for variant in variants)}
        return {variant.name: self._made(variant, progress) for variant in VARIANTS if variant.name in wanted}

    def _made(self, variant: Variant, progress: Progress) -> Path:
        if variant.tool:
            return self._once(variant.name, lambda folder: self._tool(variant, folder)) / "onnx"
        source = self._pressed(variant.group_size, progress) if variant.group_size else self.pipeline
        settings = Export.model_validate(variant.settings)
        return self._once(variant.name, lambda folder: export(source, folder, settings, (), progress, False)) / "onnx"

    def _tool(self, variant: Variant, folder: Path) -> None:
        folder.mkdir()
        base, pressed = (self.folder / name / "onnx" for name in (BASE, LINEARS))
        tools.quantize(str(variant.tool), variant.options, base, pressed, folder / "onnx")

    def _pressed(self, group_size: int, progress: Progress) -> Path:
        """The pipeline pressed with groups of a size; those of 128 have the other solutions beside them."""
        wanted = {"scheme": {"group_size": group_size}, "also": ALSO if group_size == 128 else {}}
        said = {"device": "bench", "quantize": {**self.quantize, **wanted}, "calibration": self.calibration}
        recipe = Recipe.model_validate(said)
        return self._once(f"pressed-{group_size}", lambda folder: press(recipe, self.pipeline, folder, progress))

    def _once(self, name: str, make: Callable[[Path], object]) -> Path:
        folder, new = self.folder / name, self.folder / f"{name}.new"
        if not folder.exists():
            shutil.rmtree(new, ignore_errors=True)
            make(new)
            new.rename(folder)
        return folder
