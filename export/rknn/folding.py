"""What folding is worth in 8 bits: parts built of a solution's weights, and of the model's own by the toolkit alone.

Both are calibrated on the same samples, and held against what the model's own float graphs answer. The denoiser is
taken as a whole too: its graphs one after another, as they run at a step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ...models.npu import Part
from ...progress import Progress, silent
from ...recipe import Rknn
from ...runtime.rknn.chain import RunPart
from ...runtime.rknn.simulator import simulate
from ...runtime.rknn.tiles import chained
from ...runtime.rknn.toolkit import Toolkit
from .build import nearest
from .calls import Calls, Step, calibrate, painted_by_torch, recorded, spread, steps
from .floats import Floats
from .job import Job, prepare
from .measure import Files, compare, measure
from .ways import ways

DENOISER = "denoiser"  # its graphs together


@dataclass(frozen=True)
class Compared:
    """Simulated errors in 8 bits: the error's norm over the output's, the worst of some calls.

    plain: of the model's own weights, rounded by the toolkit alone. folded: of the solution's weights. mixed: of those
    with the layers in float16 that an export keeps so.
    """

    plain: float
    folded: float
    mixed: float


def compare_folding(
    source: Path, output: Path, settings: Rknn, folder: Path, progress: Progress = silent, limit: float = 3600
) -> dict[str, Compared]:
    """Errors of every part that has a solution, by name, and of the denoiser.

    Args:
        source, output, settings: as of an export in w8a8. folder: where all that is made is left. limit: seconds that
            the toolkit may take for a part.

    Raises:
        UserError: as an export does.
    """
    job = prepare(source, output, settings.model_copy(update={"precision": "w8a8"}), ())
    own = replace(job, sources=job.floats)
    plain, folded = Floats(own, folder / "plain"), Floats(job, folder / "folded")
    plain.write_all(progress)
    folded.write_all(progress)
    floats = plain.sessions()
    calls = recorded(own, floats, painted_by_torch(job), plain.files)
    rounded = [part for part in job.on_npu if job.scheme(part)]
    job.write_tokenizer(folder / "tokenizer")
    calibrate(own, floats, rounded, folder / "tokenizer", folder, progress)
    with Toolkit(limit) as toolkit:
        trials = _Trials(own, toolkit, folder, calls, floats)
        alone = trials.errors(plain.files, mixed=False)
        ours = trials.errors(folded.files, mixed=False)
        mixed = trials.errors(folded.files, mixed=True)
    return {name: Compared(alone[name], ours[name], mixed[name]) for name in alone}


class _Trials:
    """Builds the same parts in several ways, and holds what they answer against floats.

    folder: with the parts' samples. calls: of parts in floats. floats: runs them.
    """

    def __init__(self, job: Job, toolkit: Toolkit, folder: Path, calls: Calls, floats: RunPart) -> None:
        self._job, self._toolkit, self._folder, self._calls, self._floats = job, toolkit, folder, calls, floats
        self._parts = [part for part in job.on_npu if job.scheme(part)]
        self._steps = spread(list(steps(job, floats, painted_by_torch(job).ids, 0)))

    def errors(self, files: Mapping[str, Path], mixed: bool) -> dict[str, float]:
        """Of each part that is rounded, by name, and of the denoiser. mixed: sensitive layers stay in float16."""
        found = {part.name: self._error(part, files[part.name], mixed) for part in self._parts}
        return found | {DENOISER: max(self._of_step(step) for step in self._steps)}

    def _error(self, part: Part, onnx: Path, mixed: bool) -> float:
        (way,) = ways("w8a8", self._job.settings.target, self._job.scheme(part))
        files = Files(onnx, self._folder / part.name, self._folder / f"{part.name}.rknn", self._calls[part.name])
        if mixed:
            return nearest(self._toolkit, part, way, files, True)[1].relative
        return measure(self._toolkit, part.name, files, way.recipe).relative

    def _of_step(self, step: Step) -> float:
        names = {part.name for part in self._parts}
        run: RunPart = lambda name, inputs: (  # noqa: E731
            simulate(self._toolkit, name, inputs) if name in names else self._floats(name, inputs)
        )
        graphs = chained(self._job.host, self._job.links, run)
        velocity = self._job.host.velocity(graphs, step.latents, step.timestep, step.caption)
        return compare(velocity, step.velocity)[0]
