"""Runs exports on whichever processor runs this: graphs on their golden inputs, and images of prompts, as JSON.

Arguments: the prompt set, the number of images, the folder for results, then each export as NAME=FOLDER. It imports
only what a board has. An export whose results are there already is left out, so that an interrupted run goes on.
"""

from __future__ import annotations

import json
import platform
import sys
from pathlib import Path
from time import perf_counter
from typing import Any

import onnxruntime

from ...common.cpu_features import read_cpu_features
from ...prompts.prompt import Prompt, prompt_seed
from ...prompts.sets import load_prompt_set
from ...runtime.generation_request import GenerationRequest
from ...runtime.golden import run_goldens
from ...runtime.pipeline import ImagePipeline

RESULTS, SEED = "results.json", 0


def run_export(export: Path, prompts: list[Prompt], output: Path) -> dict[str, Any]:
    """Runs an export, and saves its images as PNG files.

    Args:
        export: The exported folder `onnx`.
        prompts: What to generate images of.
        output: An existing folder for the images.

    Returns:
        Engine and processor, the error and limit of each graph, and the seconds of each image.
    """
    goldens = run_goldens(export)
    pipeline, seconds = ImagePipeline(export, keep_loaded=True, threads=1), []
    for prompt in prompts:
        start = perf_counter()
        pipeline.generate(GenerationRequest(prompt.prompt, prompt_seed(prompt.id, SEED))).save(
            output / f"{prompt.id}.png"
        )
        seconds.append(perf_counter() - start)
    return {
        "engine": f"ONNX Runtime {onnxruntime.__version__}",
        "architecture": platform.machine(),
        "features": sorted(read_cpu_features().flags),
        "graphs": {golden.graph: {"error": golden.relative_error, "limit": golden.limit} for golden in goldens},
        "image_seconds": seconds,
    }


def main(prompt_set: str, num_images: str, output: str, *exports: str) -> None:
    """Runs all exports; the results of each are in a folder of its name."""
    prompts = load_prompt_set(prompt_set)[: int(num_images)]
    for name, _, export in (entry.partition("=") for entry in exports):
        folder = Path(output) / name
        if (folder / RESULTS).exists():
            continue
        folder.mkdir(parents=True, exist_ok=True)
        results = run_export(Path(export), prompts, folder)
        (folder / RESULTS).write_text(json.dumps(results, indent=2), "utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
