"""A resumable training stage."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch import Tensor, nn

from ...storage.atomic_file import atomic_write

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
SAVE_INTERVAL_S = 180.0  # seconds


@dataclass
class TrainingStage:
    """A resumable training stage.

    Attributes:
        path: File of its checkpoint.
        modules: Modules by name, with their state in the checkpoint.
        optimizers: Optimizers, with their state in the checkpoint.
        steps: Number of steps to train.
        step: Number of finished steps.
    """

    path: Path
    modules: dict[str, nn.Module]
    optimizers: list[torch.optim.Optimizer]
    steps: int
    step: int = 0

    def resume(self) -> None:
        """Loads the checkpoint, if there is one."""
        if self.path.exists():
            state = torch.load(self.path, map_location=DEVICE, weights_only=True)
            for name, module in self.modules.items():
                module.load_state_dict(state[name])
            for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(saved)
            self.step = state["step"]

    def save(self) -> None:
        """Writes the checkpoint atomically."""
        state: dict[str, Any] = {name: module.state_dict() for name, module in self.modules.items()}
        state |= {"optimizers": [optimizer.state_dict() for optimizer in self.optimizers], "step": self.step}
        atomic_write(self.path, lambda temporary: torch.save(state, temporary))

    def run(
        self, compute_loss: Callable[[], Tensor], rate: float, on_step: Callable[[int], None] | None = None
    ) -> None:
        """Trains with a one-cycle schedule (5 % warm-up, cosine decay to 2 %) and clipped gradients.

        Args:
            compute_loss: Draws a batch and returns its loss.
            rate: Peak learning rate; a parameter group may scale it with the key `scale`.
            on_step: Called with the number of finished steps.
        """
        self.resume()
        groups = [group for optimizer in self.optimizers for group in optimizer.param_groups]
        parameters = [p for group in groups for p in group["params"]]
        saved = started = time.monotonic()
        first, losses = self.step, []
        while self.step < self.steps:
            factor = min(1.0, (self.step + 1) / (0.05 * self.steps)) * cosine_decay(self.step / self.steps)
            for group in groups:
                group["lr"] = rate * factor * group.get("scale", 1.0)
            with torch.autocast(DEVICE.type, torch.bfloat16):
                loss = compute_loss()
            for parameter in parameters:
                parameter.grad = None
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            for optimizer in self.optimizers:
                optimizer.step()
            self.step += 1
            if on_step:
                on_step(self.step)
            losses.append(loss.item())
            if self.step % 50 == 0:
                pace = (time.monotonic() - started) / (self.step - first)
                click.echo(
                    f"{self.path.stem} {self.step}/{self.steps} loss {np.mean(losses[-50:]):.4f} {pace:.2f} s/step"
                )
            if time.monotonic() - saved > SAVE_INTERVAL_S:
                self.save()
                saved = time.monotonic()
        self.save()


def cosine_decay(progress: float, floor: float = 0.02) -> float:
    """Returns the factor of the learning rate, from 1 to `floor`."""
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))


def load_modules(path: Path, **modules: nn.Module) -> None:
    """Loads modules from a checkpoint by name."""
    state = torch.load(path, map_location=DEVICE, weights_only=True)
    for name, module in modules.items():
        module.load_state_dict(state[name])
