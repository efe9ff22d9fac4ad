"""AutoRound: W4A16, symmetric, groups of 128; the denoiser in its diffusion mode, the text encoder as a language model.

Without iterations it rounds. With them it learns the rounding and the ranges of each block by signed gradients.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from auto_round import AutoRound
from torch import nn

from .job import QuantizeJob
from .layers import DequantizedLayer, count_grouped_bits, iter_linears

PACKAGE = "auto-round"


def quantize(pipeline: Any, job: QuantizeJob) -> None:
    iterations = job.options["iters"]
    for component, names in job.layers.items():
        model = getattr(pipeline, component)
        common = {"scheme": "W4A16", "iters": iterations, "layer_config": _keep_in_float(model, names)}
        is_text_encoder = component == "text_encoder"
        tuner = (
            _make_language_tuner(pipeline, model, job, common)
            if is_text_encoder
            else _make_diffusion_tuner(pipeline, job, common)
        )
        tuner.quantize()


def read(pipeline: Any, job: QuantizeJob, _: None) -> Iterator[tuple[str, DequantizedLayer]]:
    """The modules hold dequantized weights in bfloat16. Codes times scales are exact."""
    for name, module in iter_linears(pipeline, job):
        scales: Any = module.scale  # (out, groups)
        scale_per_weight = scales.float().repeat_interleave(module.in_features // scales.shape[1], 1)
        codes = torch.round(module.weight.detach().float() / scale_per_weight)
        yield name, DequantizedLayer(codes * scale_per_weight, count_grouped_bits(codes.numel(), scales.numel()))


def _keep_in_float(model: nn.Module, names: tuple[str, ...]) -> dict[str, Any]:
    """Returns the configuration that keeps other linear layers in float."""
    names_in_float = (
        name for name, module in model.named_modules() if isinstance(module, nn.Linear) and name not in names
    )
    return {name: {"bits": 16, "data_type": "float"} for name in names_in_float}


def _make_diffusion_tuner(pipeline: Any, job: QuantizeJob, common: dict[str, Any]) -> Any:
    """Passes the prompts as its own loader would, batch by batch. It draws its own noise."""
    sampling = dict(job.sampling)
    return AutoRound(
        pipeline,
        dataset=[(list(batch.seeds), list(batch.prompts)) for batch in job.calibration],
        nsamples=sum(len(batch.prompts) for batch in job.calibration),
        guidance_scale=sampling.pop("guidance_scale"),
        calib_num_inference_steps=sampling.pop("num_inference_steps"),
        generator_seed=0,
        pipeline_call_kwargs=sampling,
        **common,
    )


def _make_language_tuner(pipeline: Any, model: nn.Module, job: QuantizeJob, common: dict[str, Any]) -> Any:
    prompts = [prompt for batch in job.calibration for prompt in batch.prompts]
    encoded = [pipeline.tokenizer(prompt, return_tensors="pt") for prompt in prompts]
    number = len(encoded)
    return AutoRound(model, pipeline.tokenizer, dataset=encoded, nsamples=number, seqlen=1, batch_size=1, **common)
