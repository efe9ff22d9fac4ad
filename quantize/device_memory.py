"""Whether what a quantization holds on a GPU fits its memory."""

from __future__ import annotations

import math

import torch

from ..common.errors import UserError
from ..pipelines.sampling import SamplingParams
from .calibration.collector import CALIBRATION_PIXELS, HESSIAN_BYTES, compute_hessian_bytes
from .compute_device import PROCESSOR_ADVICE, describe_device
from .plan import ComponentPlan, QuantizationPlan
from .tuning.context import count_parameters
from .tuning.stage import is_small, list_tuned_components

BASE_BYTES = 2**29  # the libraries of the GPU
PIXELS_PER_TOKEN = 256  # of a transformer behind a VAE that makes one latent of 8 x 8 pixels, in patches of 2 x 2
ACTIVATIONS = 16  # values that a block holds for each channel of a token
BYTES_PER_SQUARED_WIDTH = 28  # H of an input, and what solving makes from it
BYTES_PER_WEIGHT = 40  # of a linear that is solved
BYTES_PER_PARAMETER = 17  # that is trained
TRAINED_ACTIVATIONS = 3  # times as many as without gradients


def estimate_device_bytes(plan: QuantizationPlan, sampling: SamplingParams, dtype: torch.dtype) -> int:
    """Returns about how many bytes of a GPU calibrating, solving and tuning take, whichever takes the most.

    Args:
        plan: The plan.
        sampling: How images of the calibration are generated.
        dtype: What the reference computes in.
    """
    components = (*plan.components, *plan.unquantized_components)
    blocks = max((_count_largest_block(part) for part in components), default=0)
    resident = sum(_count_resident(part) for part in components)
    hessians = sum(size for size in map(compute_hessian_bytes, plan.components) if size <= HESSIAN_BYTES)
    shapes = [part.checkpoint.shape(f"{name}.weight") for part in plan.components for name in _list_linears(part)]
    width = max((shape[1] for shape in shapes), default=0)
    tokens = max(CALIBRATION_PIXELS, sampling.height * sampling.width) // PIXELS_PER_TOKEN
    activations = tokens * width * ACTIVATIONS * dtype.itemsize
    largest = max(map(math.prod, shapes), default=0)
    calibrating = (resident + blocks) * dtype.itemsize + hessians + activations
    solving = hessians + BYTES_PER_SQUARED_WIDTH * width**2 + BYTES_PER_WEIGHT * largest + 8 * blocks
    tuned = list_tuned_components(plan) if plan.settings.tune != "off" else []
    trained = (count_parameters(part) if is_small(part) else _count_largest_block(part) for part in tuned)
    tuning = max((BYTES_PER_PARAMETER * count for count in trained), default=0) + TRAINED_ACTIVATIONS * activations
    return BASE_BYTES + max(calibrating, solving, tuning)


def require_device_memory(device: torch.device, needed: int) -> None:
    """Checks that a GPU has as many bytes free.

    Raises:
        UserError: It has not.
    """
    if device.type == "cpu":
        return
    free, _ = torch.get_device_module(device).mem_get_info(device)
    if free < needed:
        raise UserError(
            f"Quantizing takes about {needed / 2**30:.1f} GiB of {describe_device(device)}, of which "
            f"{free / 2**30:.1f} GiB are free. Close other programs that use the GPU, {PROCESSOR_ADVICE}."
        )


def _list_linears(component: ComponentPlan) -> list[str]:
    return [linear for block in component.blocks for linear in block.linears]


def _count_largest_block(component: ComponentPlan) -> int:
    return max((count_parameters(component, path) for path in component.repeated), default=0)


def _count_resident(component: ComponentPlan) -> int:
    """Returns the number of values that are not in blocks, which are left on disk until they run."""
    prefixes = tuple(f"{path}." for path in component.repeated)
    names = [name for name in component.used_tensor_names if not name.startswith(prefixes)]
    return sum(math.prod(component.checkpoint.shape(name)) for name in names)
