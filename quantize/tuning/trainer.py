"""Trains a quantized denoiser to the reference's velocities, validated on prompts that it is not trained on.

Its state is stored now and then, so that a killed run goes on with the same result to the byte.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from ...storage.checkpoint import write_tensors
from ...storage.manifest import TuningRecord
from ..workspace import iterate_tensors, read_metadata
from .budget import BATCH, VALIDATION_INTERVAL
from .calls import DenoiserCall
from .optimizer import Adam, cosine_factor
from .samples import Samples
from .trainable import TrainableModel
from .workers import ShardWorkers

PATIENCE = 4  # validations in a row that bring no improvement, after which training ends
CODE_RATE = 0.004  # of positions of codes that move, in codes
SAVE_INTERVAL_S = 20.0  # a killed run loses at most this and one step
GROUPS = ("best", "parameter", "moment", "square")  # of tensors in a stored state


@dataclass
class Course:
    """How far training has come.

    Attributes:
        validation: The mean squared error on prompts that are not trained on, by step.
        best_step: The step with the least of them.
    """

    validation: dict[int, float] = field(default_factory=dict)
    best_step: int = 0

    @property
    def is_stalled(self) -> bool:
        """Whether the last validations have brought no improvement."""
        return sum(step > self.best_step for step in self.validation) >= PATIENCE


class Trainer:
    """Trains a denoiser.

    Args:
        model: The denoiser; its parameters are changed in place.
        workers: Threads that compute with it.
        samples: What it is trained and validated on.
        steps: Number of steps.
        rate: The rate of each tensor as a share of its mean |value|, but for codes.
        file: Where the state is stored while training runs.
        batch: Samples of a step.

    Attributes:
        course: How far training has come.
        best: What is trained, as at the best validation and rounded as it is stored, in float32.
    """

    def __init__(
        self,
        model: TrainableModel,
        workers: ShardWorkers,
        samples: Samples,
        steps: int,
        rate: float,
        file: Path,
        batch: int = BATCH,
    ) -> None:
        self._model, self._workers, self._samples = model, workers, samples
        self._steps, self._file, self._batch = steps, file, batch
        self._weights = [1.0] * (1 + max(call.step for call in samples.train))
        self._adam = Adam.create(model.parameters, rate, dict.fromkeys(model.list_positions(), CODE_RATE))
        self._last_saved = time.monotonic()
        self.course = Course()
        self.best: dict[str, Tensor] = {}
        if file.exists():
            self._restore()
        else:
            self._validate()

    def run(self, report: Callable[[int], None]) -> None:
        """Trains to the end, or until validation does not improve any more.

        Args:
            report: Called with the number of finished steps.
        """
        report(self._adam.step)
        while self._adam.step < self._steps and not self.course.is_stalled:
            samples = select_batch(self._adam.step, self._samples.train, self._batch)
            _, gradients = self._workers.compute_gradients(samples, self._weights)
            self._adam.update(gradients, cosine_factor(self._adam.step + 1, self._steps))
            self._model.update_weights()
            if self._adam.step % VALIDATION_INTERVAL == 0 or self._adam.step == self._steps:
                self._validate()
            if time.monotonic() - self._last_saved > SAVE_INTERVAL_S:
                self._save()
            report(self._adam.step)

    def _validate(self) -> None:
        """Measures the parameters as they are stored, and keeps them if they are the best so far."""
        exact = {name: tensor.clone() for name, tensor in self._model.parameters.items()}
        rounded = self._model.round_parameters()
        self._model.set_parameters(rounded)
        error = fmean(self._workers.compute_errors(self._samples.validation))
        self._model.set_parameters(exact)
        if not self.course.validation or error < self.course.validation[self.course.best_step]:
            self.best, self.course.best_step = rounded, self._adam.step
        self.course.validation[self._adam.step] = error

    def _save(self) -> None:
        groups = (self.best, self._adam.parameters, self._adam.moments, self._adam.squares)
        tensors = {
            f"{group}:{name}": t for group, values in zip(GROUPS, groups, strict=True) for name, t in values.items()
        }
        write_tensors(tensors, self._file, json.dumps(asdict(self.course) | {"step": self._adam.step}))
        self._last_saved = time.monotonic()

    def _restore(self) -> None:
        metadata: dict[str, Any] = read_metadata(self._file)
        groups: dict[str, dict[str, Tensor]] = {group: {} for group in GROUPS}
        for key, tensor in iterate_tensors(self._file):
            group, _, name = key.partition(":")
            groups[group][name] = tensor.to(self._model.parameters[name].device)
        self.best, self._adam.moments, self._adam.squares = groups["best"], groups["moment"], groups["square"]
        self._model.set_parameters(groups["parameter"])
        self._adam.step = metadata["step"]
        validation = {int(step): error for step, error in metadata["validation"].items()}
        self.course = Course(validation, metadata["best_step"])


def describe(course: Course, samples: Samples, model: TrainableModel) -> TuningRecord:
    """Returns what the manifest says of a training."""
    return TuningRecord(
        samples=len(samples.train),
        prompts=samples.prompts,
        validation_samples=len(samples.validation),
        validation_prompts=samples.validation_prompts,
        steps=max(course.validation),
        best_step=course.best_step,
        validation_before=course.validation[0],
        validation_after=course.validation[course.best_step],
        parameters=sum(parameter.numel() for parameter in model.parameters.values()),
    )


def select_batch(step: int, samples: Sequence[DenoiserCall], batch: int = BATCH) -> list[DenoiserCall]:
    """Returns the samples of a step: they are shuffled again whenever all have been used.

    Args:
        step: From 0.
        samples: All samples.
        batch: How many are returned.
    """
    positions = range(step * batch, (step + 1) * batch)
    rounds = {position // len(samples) for position in positions}
    orders = {number: _shuffle(len(samples), number) for number in rounds}
    return [samples[orders[position // len(samples)][position % len(samples)]] for position in positions]


def _shuffle(size: int, number: int) -> list[int]:
    order: list[int] = torch.randperm(size, generator=torch.Generator().manual_seed(number)).tolist()
    return order
