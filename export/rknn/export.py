"""From a pipeline folder to the parts that a Rockchip board's NPU runs, simulated and published as one folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray

from ... import artifact
from ...checkpoint import Checkpoint, sha256, write_json
from ...errors import UserError
from ...int8 import Int8Rows, dequantize_rows
from ...models.host import host_of
from ...models.npu import Npu, NpuHost, Part, npu_host_class, npu_of
from ...progress import Progress, silent
from ...prompts import load_prompts
from ...recipe import Rknn, Scheme
from ...runtime.noise import noise
from ...runtime.prompt import Reader
from ...runtime.rknn.chain import Arrays, Chains, Link, RunPart
from ...runtime.rknn.manifest import (
    EMBEDDINGS,
    FOLDER,
    NAME,
    SCHEMA_VERSION,
    SIMULATOR,
    PartFile,
    Recipe,
    described,
)
from ...runtime.rknn.simulator import save_samples, simulate
from ...runtime.rknn.toolkit import Toolkit, interpreter
from ...runtime.schedule import schedule
from ...runtime.sessions import Sessions
from ...sources import prompt_file
from ..onnx.golden import Reference
from ..onnx.model import Model, find, tokenizer_files
from ..onnx.picture import Painted, paint, psnr, repaint
from ..onnx.weights import Source
from .cut import BITS, DOMAIN, Limits, cut
from .graph import source_of, write
from .kit import write_kit
from .measure import Measured, Sample, measure
from .verdict import refused

TOKENIZER = ("tokenizer.json", "chat_template.jinja", "tokenizer_config.json")
GOLDENS = 3  # calls of a part that it is simulated on: the first, one in the middle, the last
STEPS = 8
PICTURE = 2e9  # bytes of ONNX up to which all parts are simulated together
LEAST_PSNR = {"fp16": 35.0, "w8a8": 0.0, "w4a16": 0.0, "auto": 0.0}  # dB, of the simulated picture and torch's


@dataclass(frozen=True)
class Exported:
    """What exporting left: the published folder, and what was measured of each part.

    picture: decibels from torch's picture, by whom it was painted (None: equal); empty where not all parts could be run
    together.
    """

    folder: Path
    parts: dict[str, Measured]
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


@dataclass(frozen=True)
class Job:
    """All that one export is made from.

    graphs: the parts of each, in order. precisions: of components. sources, cpu_sources: of components, for the NPU and
    for the CPU.
    """

    model: Model
    npu: Npu
    host: NpuHost
    settings: Rknn
    size: tuple[int, int]
    graphs: dict[str, list[Part]]
    precisions: Mapping[str, str]
    embeddings: NDArray[np.float16] = field(repr=False)
    sources: dict[str, Source] = field(repr=False)
    cpu_sources: dict[str, Source] = field(repr=False)

    @property
    def links(self) -> dict[str, list[Link]]:
        return {name: [Link(part.name, _ports(part)) for part in parts] for name, parts in self.graphs.items()}

    @property
    def is_whole(self) -> bool:
        """Whether all graphs are there that paint a picture."""
        return len(self.graphs) == len(self.npu.graphs)

    def on_cpu(self, part: Part) -> bool:
        return any(part in self.graphs[name] for name in self.settings.cpu if name in self.graphs)

    def precision(self, part: Part) -> str:
        return self.precisions[part.graph.component]


def prepare(source: Path, output: Path, settings: Rknn, components: Sequence[str]) -> Job:
    """Looks at all that can be wrong before anything is written.

    Raises:
        UserError: it is.
    """
    interpreter()
    if settings.precision == "w4a16" and settings.target != "rk3576":
        raise UserError(f"{settings.target} runs no 4-bit weights on its NPU; give --precision fp16 or w8a8.")
    model = find(source)
    npu = npu_of(model.family)
    known = list(dict.fromkeys(graph.component for graph in npu.graphs))
    unknown = [name for name in components if name not in known]
    if unknown:
        raise UserError(f"There is no component {unknown[0]!r} to export; there are {', '.join(known)}.")
    absent = [name for name in settings.cpu if npu.graph(name) is None]
    if absent:
        raise UserError(f"rknn.cpu names {absent[0]!r}; graphs are {', '.join(graph.name for graph in npu.graphs)}.")
    tokenizer_files(model, TOKENIZER)
    configs = model.configs()
    side = host_of(model.family, configs).native
    size = (side, side) if settings.size == "native" else settings.size
    embeddings = embedding_table(model, npu)
    host = npu_host_class(npu)(configs, size, settings.tokens, embeddings)
    pressed = find(output) if (output / "model").is_dir() else model
    chosen = [name for name in known if not components or name in components]
    solutions = {name: _solution(pressed, name, settings) for name in chosen}
    precisions = {name: settings.precision if solutions[name] else "fp16" for name in chosen}
    if settings.precision in ("w8a8", "w4a16") and not any(solutions.values()):
        raise UserError(
            f"{pressed.folder} has no solution for {settings.precision}; quantize with one beside the model "
            f"(quantize.also: {{rknn: {ASK[settings.precision]}}})."
        )
    return Job(
        model=model,
        npu=npu,
        host=host,
        settings=settings,
        size=size,
        graphs={
            graph.name: cut(
                graph,
                npu.stacks.get(graph.name),
                model.folder / graph.component,
                BITS.get(precisions[graph.component], 16),
                Limits(DOMAIN, int(settings.build_memory * 2**30), settings.blocks),
            )
            for graph in npu.graphs
            if graph.component in chosen
        },
        precisions=precisions,
        embeddings=embeddings,
        sources={name: source_of(model, npu, name, solutions[name]) for name in chosen},
        cpu_sources={name: source_of(pressed, npu, name) for name in chosen},
    )


ASK = {
    "w4a16": "{group_size: channel, zero_point: false, narrow: true}",
    "w8a8": "{bits: 8, group_size: channel, zero_point: false, narrow: true, activations: static}",
}


def _solution(model: Model, component: str, settings: Rknn) -> Checkpoint | None:
    """A component's solution on the grid that the precision asks for; the first by name."""
    wanted: Callable[[Scheme], bool] = {
        "w4a16": lambda scheme: scheme.bits == 4 and scheme.narrow and scheme.group_size == "channel",
        "w8a8": lambda scheme: scheme.rounds_activations,
        "fp16": lambda _: False,
        "auto": lambda scheme: scheme.rounds_activations if settings.target == "rk3588" else scheme.narrow,
    }[settings.precision]
    for folder in sorted(model.folder.glob(f"solutions/*/{component}")):
        solution = Checkpoint(folder)
        if wanted(Scheme.model_validate(solution.config().get("scheme", {}))):
            return solution
    return None


def embedding_table(model: Model, npu: Npu) -> NDArray[np.float16]:
    """The token embeddings (words, width), as the host looks them up."""
    component, module = npu.embeddings
    checkpoint = model.checkpoint(component)
    if f"{module}.weight" in checkpoint:
        weight = checkpoint.tensor(f"{module}.weight")
    else:
        weight = dequantize_rows(Int8Rows(*(checkpoint.tensor(f"{module}.{kind}") for kind in Int8Rows._fields)))
    table: NDArray[np.float16] = weight.to(torch.float16).numpy()
    return table


class Run:
    """One export at work in a folder: `stage`."""

    def __init__(self, job: Job, stage: Path, toolkit: Toolkit, progress: Progress) -> None:
        self._job, self._stage, self._toolkit, self._progress = job, stage, toolkit, progress
        self._files: dict[str, Path] = {}
        self._recipes: dict[str, Recipe] = {}
        self._tried: dict[str, list[dict[str, str]]] = {}

    def all(self) -> tuple[dict[str, Measured], dict[str, float | None]]:
        """Everything but publishing: what was measured of each part, and of the picture."""
        job = self._job
        sources = job.model.described(self._progress)
        version = str(self._toolkit.call("hello").answer["toolkit"])
        self._write_floats()
        np.save(self._stage / EMBEDDINGS, job.embeddings)
        _write_tokenizer(job.model, self._stage / "tokenizer")
        reference = Reference(job.model.folder, job.model.family, {})
        painted = paint(reference, job.host, reference.ids(job.host), job.size) if job.is_whole else None
        calls, floats = self._recorded(painted)
        parts = self._built(calls)
        picture = self._picture(painted, floats)
        self._save_goldens(calls)
        self._write_words(version, parts, picture, [file.model_dump() for file in sources])
        write_kit(self._stage)
        return parts, picture

    def _write_floats(self) -> None:
        """The ONNX of every part."""
        job = self._job
        parts = [part for parts in job.graphs.values() for part in parts]
        for number, part in enumerate(parts):
            self._progress("tracing", number, len(parts))
            cpu = job.on_cpu(part)
            source = (job.cpu_sources if cpu else job.sources)[part.graph.component]
            folder = self._stage if cpu else self._stage / SIMULATOR
            self._files[part.name] = write(part, job.model, source, job.host.sizes, folder, cpu)
        self._progress("tracing", len(parts), len(parts))

    def _recorded(self, painted: Painted | None) -> tuple[dict[str, list[Sample]], NDArray[np.uint8] | None]:
        """What the float parts are given and give while they paint, and the picture; a few calls of each.

        Where not all graphs are there, inputs are drawn at random.
        """
        sessions = Sessions(self._files, keep=self._fits)
        calls: dict[str, list[Sample]] = {name: [] for name in self._files}

        def run(name: str, inputs: Arrays) -> NDArray[np.float32]:
            output = sessions(name, inputs)
            calls[name].append(Sample(inputs, output))
            return output

        chains = Chains(self._job.links, run)
        picture = None
        if painted is not None:
            picture = repaint(replace(painted, host=self._job.host), chains)
        else:
            for name, parts in self._job.graphs.items():
                chains(name, random_inputs(self._files[parts[0].name]))
        return {name: _spread(found) for name, found in calls.items()}, picture

    @property
    def _fits(self) -> bool:
        return sum(file.stat().st_size for file in self._stage.rglob("*.safetensors")) < PICTURE

    def _calibrate(self) -> None:
        """Leaves calibration samples of the quantized parts: every step of some prompts, painted by the float parts."""
        job = self._job
        wanted = {part.name for part in self._npu_parts() if job.precision(part) != "fp16"}
        samples: dict[str, list[Arrays]] = {name: [] for name in wanted}
        sessions = Sessions(self._files, keep=self._fits)

        def run(name: str, inputs: Arrays) -> NDArray[np.float32]:
            if name in wanted:
                samples[name].append(inputs)
            return sessions(name, inputs)

        reader = Reader(self._stage / "tokenizer", job.host.template, job.host.max_tokens)
        prompts = load_prompts(prompt_file(job.model.folder, "own", "calibration"))[: job.settings.samples]
        for number, prompt in enumerate(prompts):
            self._progress("calibrating", number, len(prompts))
            _painted(job, Chains(job.links, run), reader.read(prompt.prompt).ids, number)
        self._progress("calibrating", len(prompts), len(prompts))
        for name, found in samples.items():
            save_samples(found, self._stage / SIMULATOR / name)

    def _npu_parts(self) -> list[Part]:
        return [part for parts in self._job.graphs.values() for part in parts if not self._job.on_cpu(part)]

    def _built(self, calls: Mapping[str, list[Sample]]) -> dict[str, Measured]:
        """Builds the NPU's parts, each in the first precision that is good enough.

        Raises:
            UserError: none is.
        """
        parts = self._npu_parts()
        if any(self._job.precision(part) not in ("fp16",) for part in parts):
            if not self._job.is_whole:
                raise UserError("Calibration paints, which takes all components; leave --component out.")
            self._calibrate()
        found = {}
        for number, part in enumerate(parts):
            self._progress("building", number, len(parts))
            found[part.name] = self._one(part, calls[part.name])
            if not self._fits:
                self._toolkit.call("drop", model=part.name)
        self._progress("building", len(parts), len(parts))
        return found

    def _one(self, part: Part, goldens: Sequence[Sample]) -> Measured:
        files = self._files[part.name], self._stage / f"{part.name}.rknn"
        samples = self._stage / SIMULATOR / part.name
        reasons: list[dict[str, str]] = []
        for precision, recipe in attempts(self._job.precision(part), self._job.settings.target):
            measured = measure(self._toolkit, part.name, files, recipe, samples, goldens)
            reason = refused(precision, measured)
            if reason is None:
                self._recipes[part.name], self._tried[part.name] = recipe, reasons
                return measured
            reasons.append({"precision": precision, "reason": reason})
        said = "; ".join(f"{each['precision']}: {each['reason']}" for each in reasons)
        raise UserError(f"The part {part.name} is refused ({said}); nothing was published.")

    def _picture(self, painted: Painted | None, floats: NDArray[np.uint8] | None) -> dict[str, float | None]:
        """Decibels from torch's picture, of the float parts and of the simulated ones.

        Raises:
            UserError: too few.
        """
        if painted is None or floats is None or not self._fits:
            return {}
        job = self._job
        sessions = Sessions({part.name: self._files[part.name] for ps in job.graphs.values() for part in ps})
        on_npu = {part.name for part in self._npu_parts()}
        run: RunPart = lambda name, inputs: (  # noqa: E731
            simulate(self._toolkit, name, inputs) if name in on_npu else sessions(name, inputs)
        )
        self._progress("painting", 0, 1)
        simulated = repaint(replace(painted, host=job.host), Chains(job.links, run))
        self._progress("painting", 1, 1)
        found = {"float": psnr(painted.pixels, floats), "simulated": psnr(painted.pixels, simulated)}
        least = LEAST_PSNR[job.settings.precision]
        if found["simulated"] is not None and found["simulated"] < least:
            raise UserError(
                f"The simulated picture is {found['simulated']:.1f} dB from torch's, where {least:.0f} dB is the "
                "least; nothing was published."
            )
        return found

    def _save_goldens(self, calls: Mapping[str, list[Sample]]) -> None:
        """The first call of each part as golden/NAME.npz: inputs as `in.PORT` in their order, the output as `out`."""
        folder = self._stage / "golden"
        folder.mkdir()
        for name, (first, *_) in calls.items():
            arrays: dict[str, Any] = {f"in.{port}": array for port, array in first.inputs.items()}
            np.savez(folder / f"{name}.npz", **arrays, out=first.output)

    def _write_words(
        self, version: str, parts: Mapping[str, Measured], picture: dict[str, float | None], sources: list[Any]
    ) -> None:
        job = self._job
        graphs = {
            name: [self._words(part, parts.get(part.name)) for part in found] for name, found in job.graphs.items()
        }
        content = {
            "schema_version": SCHEMA_VERSION,
            "family": job.model.family.pipeline,
            "target": job.settings.target,
            "toolkit": version,
            "size": list(job.size),
            "tokens": job.settings.tokens,
            "settings": job.settings.model_dump(mode="json"),
            "graphs": graphs,
            "host": job.model.configs(),
            "picture": picture,
            "verified_on_a_board": False,
            "sources": sources,
        }
        write_json(content, self._stage / NAME)

    def _words(self, part: Part, measured: Measured | None) -> dict[str, Any]:
        device: Literal["npu", "cpu"] = "cpu" if measured is None else "npu"
        recipe = self._recipes.get(part.name, Recipe({}))
        said = described(PartFile(part.name, _ports(part), device, recipe))
        if measured is None:
            return said | {"status": "not simulated: it runs on the CPU"}
        file = self._stage / f"{part.name}.rknn"
        tried = self._tried[part.name]
        size = {"bytes": file.stat().st_size, "sha256": sha256(file)}
        return said | size | measured.described() | {"status": "simulated", "refused": tried}


def attempts(precision: str, target: str) -> list[tuple[str, Recipe]]:
    """Ways to build a part, the first choice first."""
    plain = {"target_platform": target}
    ways = {
        "fp16": Recipe(plain),
        "w8a8": Recipe(plain | {"quantized_dtype": "w8a8", "quantized_algorithm": "mmse"}, quantized=True),
        "w4a16": Recipe(plain | {"quantized_dtype": "w4a16", "quantized_method": "channel"}, quantized=True),
    }
    if precision == "auto":
        return [(name, ways[name]) for name in ("w8a8" if target == "rk3588" else "w4a16", "fp16")]
    return [(precision, ways[precision])]


def _painted(job: Job, run: Chains, ids: NDArray[np.int64], seed: int) -> None:
    """Paints with float parts, for what they are given then."""
    latents = noise(job.host.latent_shape(*job.size), seed)
    steps = schedule(job.model.configs()["scheduler"], STEPS, job.host.tokens(*job.size))
    caption = job.host.encode(run, ids)
    for number, timestep in enumerate(steps.timesteps):
        latents = steps.step(latents, job.host.velocity(run, latents, float(timestep), caption), number)
    job.host.decode(run, latents)


def random_inputs(file: Path) -> Arrays:
    """Normal inputs of a graph, by the shapes that the ONNX of its first part has."""
    generator = np.random.default_rng(0)
    graph = ir.load(file).graph
    return {str(port.name): generator.standard_normal(_shape(port), np.float32) for port in graph.inputs}


def _shape(port: ir.Value) -> tuple[int, ...]:
    assert port.shape is not None
    return port.shape.numpy()


def _spread(calls: list[Sample]) -> list[Sample]:
    """The first, the last, and some between."""
    places = np.linspace(0, len(calls) - 1, min(GOLDENS, len(calls))).round().astype(int)
    return [calls[place] for place in places]


def _ports(part: Part) -> tuple[str, ...]:
    return tuple(port.name for port in part.graph.inputs)


def _write_tokenizer(model: Model, folder: Path) -> None:
    folder.mkdir()
    for name, text in tokenizer_files(model, TOKENIZER).items():
        (folder / name).write_text(text, "utf-8")
