"""`python -m workers PEER JOB` writes `layers.safetensors` and then `outcome.json` next to the job."""

from __future__ import annotations

import importlib
import sys
import time
from importlib.metadata import version
from pathlib import Path

import torch
from diffusers import DiffusionPipeline
from diffusers.utils import logging as diffusers_logging
from safetensors.torch import save_file
from transformers.utils import logging as transformers_logging

from .job import Outcome, QuantizeJob


def main() -> None:
    peer, file = sys.argv[1], Path(sys.argv[2])
    job = QuantizeJob.from_json(file.read_text("utf-8"))
    worker = importlib.import_module(f".{peer}", __package__)
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    pipeline = DiffusionPipeline.from_pretrained(job.pipeline, dtype=getattr(torch, job.dtype))
    state = worker.quantize(pipeline, job)
    finished = time.time()
    weights, bits = {}, 0
    for name, layer in worker.read(pipeline, job, state):
        weights[name] = layer.weight.detach().float().clone().contiguous()
        bits += layer.bits
    save_file(weights, file.with_name("layers.safetensors"))
    count = sum(weight.numel() for weight in weights.values())
    Outcome(count, bits, version(worker.PACKAGE), finished).write(file.with_name("outcome.json"))


if __name__ == "__main__":
    main()
