"""From a pipeline folder to the parts that a Rockchip board's NPU runs, simulated and published as one folder."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ... import artifact
from ...errors import UserError
from ...models.npu import Part
from ...progress import Progress, silent
from ...recipe import Rknn
from ...runtime.rknn.chain import RunPart
from ...runtime.rknn.manifest import EMBEDDINGS, FOLDER, SIMULATOR
from ...runtime.rknn.simulator import save_samples, simulate
from ...runtime.rknn.tiles import chained
from ...runtime.rknn.toolkit import Toolkit
from ..onnx.picture import Painted, psnr, repaint
from .build import Built, built
from .calls import Calls, again, calibrate, painted_by_torch, recorded
from .floats import Floats
from .job import Job, prepare
from .kit import write_kit
from .measure import Files, Sample
from .ways import Way, ways
from .words import write_words

LEAST_PSNR = {"fp16": 35.0, "w8a8": 0.0, "w4a16": 0.0, "auto": 0.0}  # dB, of the simulated picture and torch's


@dataclass(frozen=True)
class Exported:
    """What exporting left: the published folder, and the parts that it holds for the NPU.

    picture: decibels from torch's picture, by whom it was painted (None: equal); empty where not all parts could be run
    together.
    """

    folder: Path
    parts: dict[str, Built]
    picture: dict[str, float | None]


def export(
    source: Path,
    output: Path,
    settings: Rknn,
    components: Sequence[str] = (),
    progress: Progress = silent,
    limit: float = 3600,
) -> Exported:
    """Exports the pipeline in `source` to `output/rknn`; an older export there is replaced, or else left as it is.

    Args:
        source: a diffusers folder or an artifact folder; 4- and 8-bit solutions come from `output/model`.
        components: to export; none: all.
        limit: seconds that the toolkit may take for a part.

    Raises:
        UserError: bad input or no toolkit (before anything is written), a part or picture that is further from its
            reference than its precision may be.
    """
    job = prepare(source, output, settings, components)
    with artifact.locked(output) as work:
        stage = work / "export-rknn"
        shutil.rmtree(stage, ignore_errors=True)
        (stage / SIMULATOR).mkdir(parents=True)
        try:
            with Toolkit(limit) as toolkit:
                parts, picture = Run(job, stage, toolkit, progress).all()
            artifact.publish(stage, output / FOLDER)
        finally:
            shutil.rmtree(stage, ignore_errors=True)
    return Exported(output / FOLDER, parts, picture)


class Run:
    """One export at work in a folder: `stage`."""

    def __init__(self, job: Job, stage: Path, toolkit: Toolkit, progress: Progress) -> None:
        self._job, self._stage, self._toolkit, self._progress = job, stage, toolkit, progress
        self._floats = Floats(job, stage)

    def all(self) -> tuple[dict[str, Built], dict[str, float | None]]:
        """Everything but publishing: the parts for the NPU, and what was measured of the picture."""
        job = self._job
        sources = job.model.described(self._progress)
        version = str(self._toolkit.call("hello").answer["toolkit"])
        self._floats.write_all(self._progress)
        np.save(self._stage / EMBEDDINGS, job.embeddings)
        job.write_tokenizer(self._stage / "tokenizer")
        painted = painted_by_torch(job) if job.is_whole else None
        calls = recorded(job, self._floats.sessions(), painted, self._floats.files)
        self._save_samples(calls)
        parts = self._built(calls)
        pictures = self._pictures(painted)
        self._save_goldens(calls)
        write_words(job, self._stage, version, parts, pictures, [file.model_dump() for file in sources])
        write_kit(self._stage)
        return parts, pictures

    def _save_samples(self, calls: Calls) -> None:
        """Calibration samples of the parts that are rounded; where activations stay floats the toolkit reads none.

        Raises:
            UserError: graphs are missing that painting takes.
        """
        job = self._job
        rounded = [(part, scheme) for part in job.on_npu if (scheme := job.scheme(part))]
        eight = [part for part, scheme in rounded if scheme.rounds_activations]
        if eight and not job.is_whole:
            raise UserError("Calibration paints, which takes all components; leave --component out.")
        folder = self._stage / SIMULATOR
        if eight:
            calibrate(job, self._floats.sessions(), eight, self._stage / "tokenizer", folder, self._progress)
        for part, scheme in rounded:
            if not scheme.rounds_activations:
                save_samples([calls[part.name][0].inputs], folder / part.name)

    def _built(self, calls: Calls) -> dict[str, Built]:
        """Builds the NPU's parts, each in the first precision that is good enough.

        Raises:
            UserError: none is.
        """
        parts, found = self._job.on_npu, {}
        for number, part in enumerate(parts):
            self._progress("building", number, len(parts))
            choices = ways(self._job.precision(part), self._job.settings.target, self._job.scheme(part))
            found[part.name] = self._one(part, choices, calls)
            if not self._floats.is_small:
                self._toolkit.call("drop", model=part.name)
        self._progress("building", len(parts), len(parts))
        return found

    def _one(self, part: Part, choices: Sequence[Way], calls: dict[str, list[Sample]]) -> Built:
        samples, rknn = self._stage / SIMULATOR / part.name, self._stage / f"{part.name}.rknn"

        def files(way: Way) -> Files:
            if not way.recipe.quantized and self._job.scheme(part):  # what is not rounded loses nothing by a solution
                shutil.rmtree(samples)
                self._floats.write(part, self._job.floats[part.graph.component])
                calls[part.name] = again(calls[part.name], part.name, self._floats.files[part.name])
            return Files(self._floats.files[part.name], samples, rknn, calls[part.name])

        return built(self._toolkit, part, choices, files, self._floats.is_small)

    def _pictures(self, painted: Painted | None) -> dict[str, float | None]:
        """Decibels from torch's picture, of the float parts and of the simulated ones.

        Raises:
            UserError: too few.
        """
        if painted is None or not self._floats.is_small:
            return {}
        job, floats = self._job, self._floats.sessions()
        on_npu = {part.name for part in job.on_npu}
        simulated: RunPart = lambda name, inputs: (  # noqa: E731
            simulate(self._toolkit, name, inputs) if name in on_npu else floats(name, inputs)
        )
        found = {}
        painters: list[tuple[str, RunPart]] = [("float", floats), ("simulated", simulated)]
        for number, (name, run) in enumerate(painters):
            self._progress("painting", number, len(painters))
            found[name] = psnr(
                painted.pixels, repaint(replace(painted, host=job.host), chained(job.host, job.links, run))
            )
        self._progress("painting", len(painters), len(painters))
        least, decibels = LEAST_PSNR[job.settings.precision], found["simulated"]
        if decibels is not None and decibels < least:
            raise UserError(
                f"The simulated picture is {decibels:.1f} dB from torch's, where {least:.0f} dB is the least; "
                "nothing was published."
            )
        return found

    def _save_goldens(self, calls: Calls) -> None:
        """The first call of each part as golden/NAME.npz: inputs as `in.PORT` in their order, the output as `out`."""
        folder = self._stage / "golden"
        folder.mkdir()
        for name, (first, *_) in calls.items():
            arrays: dict[str, Any] = {f"in.{port}": array for port, array in first.inputs.items()}
            np.savez(folder / f"{name}.npz", **arrays, out=first.output)
