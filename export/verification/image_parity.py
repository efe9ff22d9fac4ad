"""A picture painted by graphs and the same one painted by torch: same weights, prompt, noise and schedule."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ...models.base.host import Host, RunGraph
from .golden import TorchReference

Pixels = NDArray[np.uint8]
IMAGE_SEED, NUM_STEPS = 0, 8


@dataclass(frozen=True)
class ReferenceImage:
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


def generate_reference(
    reference: TorchReference, host: Host, ids: NDArray[np.int64], size: tuple[int, int]
) -> ReferenceImage:
    """Torch's picture of the reference's prompt, whose tokens are `ids`; its size (height, width) is in pixels."""
    pipeline = reference.load_pipeline()
    latents = torch.randn(host.latent_shape(*size), generator=torch.Generator().manual_seed(IMAGE_SEED))
    options = {"prompt": reference.prompt, "height": size[0], "width": size[1], "latents": latents.clone()}
    with torch.no_grad():
        (image,) = pipeline(**options, num_inference_steps=NUM_STEPS, guidance_scale=0.0).images
    scheduler = pipeline.scheduler
    return ReferenceImage(
        np.asarray(image), host, ids, latents.numpy(), scheduler.sigmas.numpy(), scheduler.timesteps.numpy()
    )


def generate_with_graphs(reference_image: ReferenceImage, run: RunGraph) -> Pixels:
    """The same picture by graphs: Euler's steps along the velocity."""
    host = reference_image.host
    prompt, latents = host.encode_prompt(run, reference_image.ids), reference_image.latents
    steps = zip(reference_image.timesteps, np.diff(reference_image.sigmas), strict=True)
    for timestep, step in steps:
        latents = latents + step * host.predict_velocity(run, latents, float(timestep), prompt)
    return host.decode_latents(run, latents)


def compute_psnr(reference: Pixels, image: Pixels) -> float | None:
    """Decibels of 8-bit pictures; None where they are equal."""
    error = float(np.square(reference.astype(np.float64) - image).mean())
    return 10 * float(np.log10(255**2 / error)) if error else None
