"""Tunes a denoiser block by block: one block is in memory, and what blocks read and return is on disk.

A block is trained to return what the reference's block returned. It reads what the quantized blocks before it return
where it reads exactly that, and otherwise what the reference's read. Tensors outside of blocks stay as they are.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from ...common.memory import malloc_trim
from ...pipelines.sampling import generate_images
from ...recipes.schema import PRIMARY
from ...storage.checkpoint import write_tensors
from ...storage.manifest import TuningRecord
from ..calibration.streaming import load_streaming_pipeline
from ..plan import ComponentPlan
from ..threads import single_threaded
from ..workspace import iterate_tensors, read_metadata
from .block_calls import BlockFiles, BlockRecorder, RecordedImage, load_block_call, record_blocks, save_output
from .budget import BLOCK_BATCH, plan_block_budget
from .calls import to_float32
from .context import TuningContext, count_parameters
from .samples import Samples, count_flops
from .trainable import TrainableModel
from .trainer import Trainer, describe
from .workers import open_workers

RATE = 0.002  # of each tensor, as a share of its mean |value|
STAGE = "tuning: reference"


def tune_blocks(context: TuningContext, component: ComponentPlan, results: Mapping[str, Path]) -> None:
    """Tunes a denoiser with some schemes.

    Args:
        context: What tuning works with.
        component: The denoiser.
        results: Where the results are stored, by scheme.
    """
    blocks = list_outer_blocks(component)
    folder = context.samples_folder(component)
    with single_threaded() as available:
        reference = BlockFiles(folder / "reference", folder / "quantized")
        images, steps = _record_images(context, component, blocks, reference)
        context.check()
        malloc_trim()
        num_threads = context.count_threads(available, max(count_parameters(component, block) for block in blocks))
        for scheme, result in results.items():
            files = BlockFiles(reference.reference, folder / scheme)
            _SchemeTuning(context, component, scheme, files, images, steps, num_threads).run(result)
            shutil.rmtree(files.quantized, ignore_errors=True)


def list_outer_blocks(component: ComponentPlan) -> list[str]:
    """Lists the paths of quantized blocks that are not inside of others."""
    paths = [block.path for block in component.blocks]
    return [path for path in paths if not any(path.startswith(f"{outer}.") for outer in paths)]


def _record_images(
    context: TuningContext, component: ComponentPlan, blocks: Sequence[str], files: BlockFiles
) -> tuple[list[RecordedImage], int]:
    """Generates images with the reference, and stores what its blocks read and return.

    Returns:
        What was done for each image, and the number of steps to train.
    """
    pipeline = load_streaming_pipeline(context.plan, context.dtype, device=context.device)
    images = [_record_image(context, pipeline, component, blocks, files, 0)]
    first = images[0]
    minutes, flops = context.plan.settings.tune, first.flops / first.calls
    num_images, steps = plan_block_budget(float(minutes), flops, first.calls, len(context.schemes))
    for number in range(1, num_images):
        context.progress(STAGE, number, num_images)
        images.append(_record_image(context, pipeline, component, blocks, files, number))
    context.progress(STAGE, num_images, num_images)
    return images, steps


def _record_image(
    context: TuningContext,
    pipeline: Any,
    component: ComponentPlan,
    blocks: Sequence[str],
    files: BlockFiles,
    number: int,
) -> RecordedImage:
    """Records an image, unless an earlier run did."""
    if (record := files.load_record(number)) is not None:
        return record
    denoiser, recorder = getattr(pipeline, component.name), BlockRecorder(files, number)
    prompt = context.prompts[number % len(context.prompts)]
    with record_blocks(denoiser, blocks, recorder), count_flops(denoiser) as counts:
        generate_images(pipeline, [prompt], context.sampling, seed=number, output_type="latent")
    record = RecordedImage(recorder.calls, sum(counts), recorder.order)
    files.save_record(number, record)
    return record


@dataclass(frozen=True)
class _SchemeTuning:
    """Tunes all blocks with one scheme.

    Attributes:
        context: What tuning works with.
        component: The denoiser.
        scheme: Name of the scheme.
        files: Where calls of blocks are.
        images: The images, of which the last one validates.
        steps: Number of steps for each block.
        num_threads: How many threads compute.
    """

    context: TuningContext
    component: ComponentPlan
    scheme: str
    files: BlockFiles
    images: Sequence[RecordedImage]
    steps: int
    num_threads: int

    def run(self, result: Path) -> None:
        """Tunes the blocks in the order in which they run, and joins what they give."""
        tensors: dict[str, Tensor] = {}
        records: list[TuningRecord] = []
        order = self.images[0].order
        for number, block in enumerate(order):
            file = result.with_name(f"{result.stem}-{block}.safetensors")
            model = self.context.load(self.component, self.scheme, block)
            if not file.exists():
                self._tune(model, block, number, file)
            best = dict(iterate_tensors(file))
            model.set_parameters(best)
            self._propagate(model, block)
            tensors |= {f"{block}.{name}": tensor for name, tensor in model.to_stored(best).items()}
            records.append(TuningRecord(**read_metadata(file)))
            self._report((number + 1) * self.steps)
            malloc_trim()
        write_tensors(tensors, result, json.dumps(_join_records(records).model_dump()))

    def _tune(self, model: TrainableModel, block: str, number: int, file: Path) -> None:
        *train, held_out = ([(image, call) for call in range(r.calls)] for image, r in enumerate(self.images))
        samples = Samples(
            [load_block_call(self.files, *place, block) for calls in train for place in calls],
            [load_block_call(self.files, *place, block) for place in held_out],
            len(train),
            1,
        )
        state = file.with_name(f"{file.stem}-state.safetensors")
        with open_workers(model, self.num_threads, 1, self.context.matmul_dtype, self.context.device) as workers:
            trainer = Trainer(model, workers, samples, self.steps, RATE, state, BLOCK_BATCH)
            trainer.run(lambda step: self._report(number * self.steps + step))
        record = describe(trainer.course, samples, model)
        write_tensors(trainer.best, file, json.dumps(record.model_dump()))
        state.unlink(missing_ok=True)

    @torch.no_grad()
    def _propagate(self, model: TrainableModel, block: str) -> None:
        """Stores what the tuned block returns."""
        for image, record in enumerate(self.images):
            for call in range(record.calls):
                if not self.files.output(image, call, block).exists():
                    stored = load_block_call(self.files, image, call, block)
                    arguments = to_float32(stored.arguments, self.context.device)
                    output = model.module(**arguments)
                    save_output(self.files, image, call, block, output, self.context.dtype)

    def _report(self, step: int) -> None:
        name = self.component.name
        stage = f"tuning {name}" if self.scheme == PRIMARY else f"tuning {name}, {self.scheme}"
        self.context.progress(stage, step, len(self.images[0].order) * self.steps)


def _join_records(records: Sequence[TuningRecord]) -> TuningRecord:
    """Returns what all blocks have in common, with the means of their errors."""
    return records[0].model_copy(
        update={
            "steps": sum(record.steps for record in records),
            "best_step": sum(record.best_step for record in records),
            "validation_before": fmean(record.validation_before for record in records),
            "validation_after": fmean(record.validation_after for record in records),
            "parameters": sum(record.parameters for record in records),
        }
    )
