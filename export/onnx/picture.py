"""A picture painted by graphs and the same one painted by torch: same weights, prompt, noise and schedule."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ...models.host import Host, Run
from .golden import Reference

Pixels = NDArray[np.uint8]
SEED, STEPS = 0, 8


@dataclass(frozen=True)
class Painted:
    """Torch's picture (height, width, 3), and what another painter needs to paint it again.

    host: of the family. ids: of the prompt's tokens. latents: the noise. sigmas (steps + 1,) and timesteps (steps,): of
    the schedule.
    """

    pixels: Pixels
    host: Host
    ids: NDArray[np.int64]
    latents: NDArray[np.float32]
    sigmas: NDArray[np.float32]
    timesteps: NDArray[np.float32]


def paint(reference: Reference, host: Host, ids: NDArray[np.int64], size: tuple[int, int]) -> Painted:
    """Torch's picture of the reference's prompt, whose tokens are `ids`; its size (height, width) is in pixels."""
    pipeline = reference.pipeline()
    latents = torch.randn(host.latent_shape(*size), generator=torch.Generator().manual_seed(SEED))
    said = {"prompt": reference.prompt, "height": size[0], "width": size[1], "latents": latents.clone()}
    with torch.no_grad():
        (image,) = pipeline(**said, num_inference_steps=STEPS, guidance_scale=0.0).images
    schedule = pipeline.scheduler
    return Painted(np.asarray(image), host, ids, latents.numpy(), schedule.sigmas.numpy(), schedule.timesteps.numpy())


def repaint(painted: Painted, run: Run) -> Pixels:
    """The same picture by graphs: Euler's steps along the velocity."""
    host = painted.host
    caption, latents = host.encode(run, painted.ids), painted.latents
    steps = zip(painted.timesteps, np.diff(painted.sigmas), strict=True)
    for timestep, step in steps:
        latents = latents + step * host.velocity(run, latents, float(timestep), caption)
    return host.decode(run, latents)


def psnr(reference: Pixels, other: Pixels) -> float | None:
    """Decibels of 8-bit pictures; None where they are equal."""
    error = float(np.square(reference.astype(np.float64) - other).mean())
    return 10 * float(np.log10(255**2 / error)) if error else None
