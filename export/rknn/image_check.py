"""Compares the image that float parts and simulated parts generate with that of torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ...common.errors import UserError
from ...common.progress import Progress
from ...numerics.psnr import compute_psnr
from ...runtime.rknn.part_chain import RunPart
from ...runtime.rknn.vae_tiling import chain_graphs
from ..verification.image_parity import ReferenceImage, generate_with_graphs
from .prepare import RknnJob

MIN_PSNR = {"fp16": 35.0, "w8a8": 0.0, "w4a16": 0.0, "auto": 0.0}  # dB, of the simulated image, by precision


def measure_image_psnr(
    job: RknnJob, reference_image: ReferenceImage, runners: Mapping[str, RunPart], progress: Progress
) -> dict[str, float | None]:
    """Generates the reference image again with parts, and measures its PSNR.

    Args:
        job: The export.
        reference_image: Torch's image.
        runners: What runs the parts, by a name for it.
        progress: Called with the stage "generating".

    Returns:
        PSNR in dB by the runner's name; None: the image is equal.
    """
    reference = replace(reference_image, host=job.host)
    image_psnr = {}
    for number, (name, run_part) in enumerate(runners.items()):
        progress("generating", number, len(runners))
        image = generate_with_graphs(reference, chain_graphs(job.host, job.part_refs, run_part))
        image_psnr[name] = compute_psnr(reference_image.pixels, image)
    progress("generating", len(runners), len(runners))
    return image_psnr


def require_min_psnr(psnr: float | None, precision: str) -> None:
    """Checks the PSNR of the simulated image.

    Raises:
        UserError: It is below the minimum of the precision.
    """
    minimum = MIN_PSNR[precision]
    if psnr is not None and psnr < minimum:
        raise UserError(
            f"The simulated image has a PSNR of {psnr:.1f} dB to that of torch, but at least {minimum:.0f} dB is "
            "required, so nothing was published. Try another --precision."
        )
