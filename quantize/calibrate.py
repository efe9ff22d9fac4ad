"""Calibration: the reference runs once over the prompts, and every quantized layer's input leaves its statistics.

Components that only read the prompt run over all prompts of the set; the denoiser paints the first `count` of them,
over all steps. Statistics are Gram matrices where those of a component fit a share of the memory, and else equal
samples of tokens from every call, on disk. Where a recipe rounds activations, some tokens are kept beside the matrices.

A call of the denoiser, or a batch of prompts through the rest, is the unit of this work. Finished calls are stored with
what they returned; a run that goes on is handed those outputs again instead of computing them.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from ..checkpoint import write_tensors, written
from ..errors import UserError
from ..progress import Progress
from ..prompts import Prompt
from ..sampling import PIXELS_AT_ONCE, Sampling, batches, sample
from .plan import ComponentPlan, Plan, Unit
from .statistics import TOKENS, Statistics, gram_of
from .stream import stopped_before, stream_pipeline
from .work import Work

SAVE_EVERY = 20.0  # seconds; a killed calibration loses at most this and one call
GRAM_SHARE = 0.25  # of the memory may be taken by a component's Gram matrices
SAMPLE_TOKENS = 4096  # that stand for an input where its Gram matrix is too large to keep
PICTURES = 4 * PIXELS_AT_ONCE  # pixels painted at once: each batch reads all blocks from disk once a step
PROMPTS_AT_ONCE = 32  # that the text encoder reads


@dataclass
class Statistic:
    """All that calibration finds, by "component.module".

    inputs: statistics of each input that some fold leads into. peaks: largest |x| at the outputs of linears and
    blocks, and, under "...:in", at those inputs. texts, pictures: batches that are finished; calls: finished calls of
    the denoiser in the batch that is not.
    """

    inputs: dict[str, Statistics] = field(default_factory=dict)
    peaks: dict[str, float] = field(default_factory=dict)
    texts: int = 0
    pictures: int = 0
    calls: int = 0


class Calibration:
    """The statistics of a plan's inputs, as stored in a work folder."""

    def __init__(self, work: Work, found: Statistic) -> None:
        self._work, self._found = work, found

    @property
    def peaks(self) -> dict[str, float]:
        return self._found.peaks

    def magnitude(self, name: str) -> Tensor:
        """Mean |x| of each channel of an input, (in,)."""
        return self._found.inputs[name].mean_magnitude()

    def largest(self, name: str) -> Tensor:
        """Largest |x| of each channel of an input, (in,)."""
        return self._found.inputs[name].largest

    def gram(self, unit: Unit, name: str) -> Tensor:
        """H of an input, (in, in) float32."""
        statistics = self._found.inputs[name]
        if statistics.gram is not None:
            return statistics.gram / statistics.count
        return gram_of(self._sample(unit, name))

    def tokens(self, unit: Unit, name: str) -> Tensor:
        """About `TOKENS` tokens of an input, equally many of every call, (n, in)."""
        kept = self._found.inputs[name].tokens
        if kept is not None:
            return kept
        sample = self._sample(unit, name)
        return sample[:: max(1, len(sample) // TOKENS)]

    def _sample(self, unit: Unit, name: str) -> Tensor:
        return torch.cat([self._work.tensor(file, name) for file in self._work.samples(unit.name)])


def calibrate(
    plan: Plan,
    work: Work,
    prompts: Sequence[Prompt],
    painted: int,
    sampling: Sampling,
    dtype: torch.dtype,
    memory: int,
    progress: Progress,
) -> Calibration:
    """Statistics of every input that the plan needs; the first `painted` prompts are painted.

    Goes on from what an interrupted run stored in `work`; sums are added in the same order, so that the result is the
    same to the bit.

    Raises:
        UserError: activations that are not finite, inputs that no token reached.
    """
    run = _Run(plan, work, sampling, dtype, memory, progress)
    names = {unit.component for unit in plan.units}
    if names - {plan.family.denoiser}:
        run.read_texts(list(batches(prompts, PROMPTS_AT_ONCE)))
    if plan.family.denoiser in names:
        run.paint(list(batches(prompts[:painted], max(1, PICTURES // (sampling.height * sampling.width)))))
    run.check()
    return Calibration(work, run.found)


class _Run:
    """One process's part of a calibration."""

    def __init__(
        self, plan: Plan, work: Work, sampling: Sampling, dtype: torch.dtype, memory: int, progress: Progress
    ) -> None:
        self.plan, self.work, self.sampling, self.dtype, self.progress = plan, work, sampling, dtype, progress
        self.found = _restore(work)
        self.grams = {part.name: grams_fit(part, memory) for part in plan.components}
        self.outputs = _restore_outputs(work, self.found)
        self.saved = time.monotonic()
        self.quota = self.kept = 0  # tokens of an input that one call leaves in the sample, and beside a Gram matrix
        self._blocks = _Count(progress)

    @cached_property
    def pipeline(self) -> Any:
        return stream_pipeline(self.plan, self.dtype)

    @property
    def denoiser(self) -> nn.Module:
        found: nn.Module = getattr(self.pipeline, self.plan.family.denoiser)
        return found

    def read_texts(self, parts: list[Sequence[Prompt]]) -> None:
        """Runs what comes before the denoiser over batches of prompts."""
        read = [part for part in self.plan.components if part.units and part.name != self.plan.family.denoiser]
        self._start("calibrating on prompts", read, len(parts), self.found.texts)
        for number in range(self.found.texts, len(parts)):
            with self.watching(read, number), stopped_before(self.denoiser):
                sample(self.pipeline, parts[number], self.sampling, output="latent")
            self.found.texts = number + 1
            self.save(number + 1 == len(parts))

    def paint(self, parts: list[Sequence[Prompt]]) -> None:
        """Paints batches of prompts, as far as the decoder."""
        steps, painter = self.sampling.steps, self.plan.component(self.plan.family.denoiser)
        self._start(
            "calibrating on pictures", [painter], len(parts) * steps, self.found.pictures * steps + self.found.calls
        )
        for number in range(self.found.pictures, len(parts)):
            with self.painting(painter):
                sample(self.pipeline, parts[number], self.sampling, output="latent")
            self.found.pictures, self.found.calls, self.outputs = number + 1, 0, []
            self.save(number + 1 == len(parts))

    def _start(self, stage: str, parts: Sequence[ComponentPlan], calls: int, finished: int) -> None:
        blocks = sum(len(part.units) for part in parts)
        self.quota = -(-SAMPLE_TOKENS // calls)
        self.kept = -(-TOKENS // calls) if self.plan.quantization.rounds_activations else 0
        self._blocks.start(stage, finished * blocks, calls * blocks)

    @contextmanager
    def painting(self, painter: ComponentPlan) -> Iterator[None]:
        """Watches the denoiser's calls, and hands out again what those returned that are finished."""
        denoiser, handed = self.denoiser, iter(list(self.outputs))
        compute = denoiser.forward

        def forward(*args: Any, **kwargs: Any) -> Any:
            for output in handed:
                return output
            with self.watching([painter], self.found.pictures * self.sampling.steps + self.found.calls):
                self.outputs.append(compute(*args, **kwargs))
            self.found.calls += 1
            self.save()
            return self.outputs[-1]

        denoiser.forward = forward
        try:
            yield
        finally:
            denoiser.forward = compute

    @contextmanager
    def watching(self, parts: Sequence[ComponentPlan], call: int) -> Iterator[None]:
        """Adds the inputs of the parts' layers to what was found while the pipeline runs."""
        handles = []
        for part in parts:
            model: nn.Module = getattr(self.pipeline, part.name)
            mask: dict[str, Tensor | None] = {"tokens": None}
            handles.append(model.register_forward_pre_hook(_mask_hook(mask), with_kwargs=True))
            for unit in part.units:
                handles += _UnitWatch(self, unit, mask, call).hooks(model)
                handles.append(model.get_submodule(unit.path).register_forward_hook(self._blocks.one))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def save(self, now: bool = False) -> None:
        """Stores what is finished, every now and then."""
        if now or time.monotonic() - self.saved > SAVE_EVERY:
            self.check()
            # Outputs of a batch are stored first, in a file of the batch: the state never counts calls they lack.
            written(self.work.outputs(self.found.pictures), lambda path: torch.save(self.outputs, path))
            _store(self.work, self.found)
            self.saved = time.monotonic()

    def check(self) -> None:
        """Raises UserError where statistics cannot be used; they are then never stored."""
        for name, statistics in self.found.inputs.items():
            if not statistics.count:
                raise UserError(f"No token reached {name} in calibration; check the tokenizer folder of the model.")
            if not statistics.finite():
                raise UserError(
                    f"The reference run gave NaN or infinite activations at the input of {name}; "
                    "set dtype: float32 or bfloat16 in the recipe, and check that the model is sound."
                )


def grams_fit(part: ComponentPlan, memory: int) -> bool:
    """Whether the Gram matrices of a component's inputs, in float32, fit their share of the memory (bytes)."""
    inputs = [unit.input_of(fold) for unit in part.units for fold in unit.block.folds]
    widths = [part.checkpoint.shape(f"{path}.weight")[1] for path in inputs]
    return sum(4 * width * width for width in widths) <= GRAM_SHARE * memory


class _Count:
    """Blocks that have run, told to a progress."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.stage, self.done, self.total = "", 0, 0

    def start(self, stage: str, done: int, total: int) -> None:
        self.stage, self.done, self.total = stage, done, total
        self.progress(stage, done, total)

    def one(self, *_: Any) -> None:
        self.done += 1
        self.progress(self.stage, self.done, self.total)


def _mask_hook(mask: dict[str, Tensor | None]) -> Callable[..., None]:
    """Remembers which tokens of a padded text batch are real; the pipeline throws the others away."""

    def hook(_: nn.Module, __: Any, kwargs: dict[str, Any]) -> None:
        given = kwargs.get("attention_mask")
        mask["tokens"] = given.bool() if isinstance(given, Tensor) and given.ndim == 2 else None

    return hook


class _UnitWatch:
    """What one call of a block leaves: sums, peaks and, where Gram matrices are too large, some tokens in a file."""

    def __init__(self, run: _Run, unit: Unit, mask: dict[str, Tensor | None], call: int) -> None:
        self.run, self.unit, self.mask, self.call = run, unit, mask, call
        self.real: Tensor | None = None
        self.sampled: dict[str, Tensor] = {}
        self.runs = 0  # of the block in this call: with guidance the text encoder reads two batches

    def hooks(self, model: nn.Module) -> list[Any]:
        block = model.get_submodule(self.unit.path)
        found = [block.register_forward_pre_hook(self.begin, with_kwargs=True)]
        inputs = [self.unit.input_of(fold) for fold in self.unit.block.folds]
        found += [model.get_submodule(path).register_forward_pre_hook(self.input_hook(path)) for path in inputs]
        outputs = [*self.unit.linears, self.unit.path]
        found += [model.get_submodule(path).register_forward_hook(self.peak_hook(path)) for path in outputs]
        return [*found, block.register_forward_hook(self.end)]

    def begin(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Finds which tokens are real, where the block is told: a truth value for every token of its input."""
        given = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
        told = [value for value in given if value.dtype == torch.bool and value.shape == given[0].shape[:-1]]
        self.real = told[0] if told else self.mask["tokens"]

    def input_hook(self, path: str) -> Callable[..., None]:
        name = f"{self.unit.component}.{path}"

        def hook(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            tokens = self.tokens(args[0])
            found = self.run.found
            if name not in found.inputs:
                found.inputs[name] = Statistics.empty(tokens.shape[-1], self.run.grams[self.unit.component])
            found.inputs[name].add(tokens)
            self.peak(f"{name}:in", args[0])
            self.set_aside(name, tokens)

        return hook

    def set_aside(self, name: str, tokens: Tensor) -> None:
        """Keeps some tokens: of an input without a Gram matrix for the disk, of one with it beside that."""
        statistics = self.run.found.inputs[name]
        quota = self.run.quota if statistics.gram is None else self.run.kept
        if quota:
            some = tokens[_some(len(tokens), quota, f"{name}:{self.call}:{self.runs}")]
            if statistics.gram is None:
                self.sampled[name] = some
            else:
                statistics.keep(some)

    def peak_hook(self, path: str) -> Callable[..., None]:
        name = f"{self.unit.component}.{path}"

        def hook(_: nn.Module, __: Any, output: Any) -> None:
            self.peak(name, output[0] if isinstance(output, tuple) else output)

        return hook

    def peak(self, name: str, x: Tensor) -> None:
        """Padding counts here: what overflows there is NaN, and not even a mask of zeros keeps NaN out."""
        peaks = self.run.found.peaks
        low, high = x.detach().aminmax()
        peaks[name] = max(peaks.get(name, 0.0), -float(low), float(high))

    def tokens(self, x: Tensor) -> Tensor:
        """The real tokens (n, channels) of a batch."""
        x = x.detach()
        return x.reshape(-1, x.shape[-1]) if self.real is None else x[self.real]

    def end(self, *_: Any) -> None:
        """Puts the sampled tokens on disk."""
        if self.sampled:
            write_tensors(self.sampled, self.run.work.sample(self.unit.name, self.call, self.runs))
            self.sampled = {}
        self.runs += 1


def _some(count: int, quota: int, name: str) -> Tensor:
    """Which of `count` tokens stay: `quota` of them by a draw that depends on the name alone."""
    digest = hashlib.sha256(name.encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    return torch.randperm(count, generator=generator)[:quota].sort().values


def _store(work: Work, found: Statistic) -> None:
    tensors = {key: tensor for name, held in found.inputs.items() for key, tensor in held.tensors(name).items()}
    position = torch.tensor([found.texts, found.pictures, found.calls])
    peaks = {f"{name}/peak": torch.tensor(peak, dtype=torch.float64) for name, peak in found.peaks.items()}
    write_tensors(tensors | peaks | {"position": position}, work.statistics)


def _restore(work: Work) -> Statistic:
    if not work.statistics.exists():
        return Statistic()
    stored = work.read(work.statistics)
    names = [key.removesuffix("/count") for key in stored if key.endswith("/count")]
    peaks = {key.removesuffix("/peak"): float(value) for key, value in stored.items() if key.endswith("/peak")}
    texts, pictures, calls = (int(value) for value in stored["position"])
    return Statistic({name: Statistics.restore(name, stored) for name in names}, peaks, texts, pictures, calls)


def _restore_outputs(work: Work, found: Statistic) -> list[Any]:
    """What the finished calls of an unfinished batch returned."""
    if not found.calls:
        return []
    outputs: list[Any] = torch.load(work.outputs(found.pictures), weights_only=True)
    return outputs[: found.calls]
