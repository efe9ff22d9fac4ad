"""Tunes a denoiser as a whole: its velocities are those of the reference, along the reference's trajectories."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ...common.memory import malloc_trim
from ...recipes.schema import PRIMARY
from ...storage.checkpoint import write_tensors
from ..calibration.streaming import load_streaming_pipeline
from ..plan import ComponentPlan
from ..threads import single_threaded
from .budget import plan_budget
from .context import TuningContext, count_parameters
from .samples import Samples, collect_samples, measure_image
from .trainer import Trainer, describe
from .workers import open_workers

RATE = 0.002  # of each tensor, as a share of its mean |value|
SHARD_PIXELS = 2**17  # computed at once by one thread: 8 images of the demo


def tune_whole(context: TuningContext, component: ComponentPlan, files: Mapping[str, Path]) -> bool:
    """Tunes a denoiser with some schemes.

    Args:
        context: What tuning works with.
        component: The denoiser.
        files: Where the results are stored, by scheme.

    Returns:
        False if `auto` would take too long.
    """
    with single_threaded() as available:
        pipeline = load_reference(context)
        measures = measure_image(pipeline, component.name, context.prompts[0], context.sampling)
        budget = plan_budget(context.plan.settings.tune, *measures, len(context.prompts), len(context.schemes))
        if budget is None:
            return False
        num_threads = context.count_threads(available, count_parameters(component), moves_codes=True)
        prompts, folder = context.prompts[: budget.prompts], context.samples_folder(component)
        samples = collect_samples(
            pipeline, component.name, prompts, budget.seeds, context.sampling, folder, num_threads, context.progress
        )
        context.check()
        del pipeline
        malloc_trim()
        for scheme, file in files.items():
            _tune_scheme(context, component, scheme, file, samples, budget.steps, num_threads)
    return True


def load_reference(context: TuningContext) -> Any:
    """Loads the reference in float32, with quantized text encoders."""
    pipeline = load_streaming_pipeline(context.plan, torch.float32, streams=False, device=context.device)
    for encoder in context.plan.components:
        if encoder.name not in context.plan.family.denoisers and encoder.blocks:
            setattr(pipeline, encoder.name, context.load(encoder, PRIMARY).module.requires_grad_(False))
    return pipeline


def _tune_scheme(
    context: TuningContext,
    component: ComponentPlan,
    scheme: str,
    file: Path,
    samples: Samples,
    steps: int,
    num_threads: int,
) -> None:
    model = context.load(component, scheme, moves_codes=True)
    shard_size = max(1, SHARD_PIXELS // (context.sampling.height * context.sampling.width))
    state = file.with_name(f"{file.stem}-state.safetensors")
    stage = f"tuning {component.name}" if scheme == PRIMARY else f"tuning {component.name}, {scheme}"
    with open_workers(model, num_threads, shard_size, context.matmul_dtype, context.device) as workers:
        trainer = Trainer(model, workers, samples, steps, RATE, state)
        trainer.run(lambda step: context.progress(stage, step, steps))
    context.progress(stage, steps, steps)
    record = describe(trainer.course, samples, model)
    write_tensors(model.to_stored(trainer.best), file, json.dumps(record.model_dump()))
    state.unlink(missing_ok=True)
