"""Quantizes the demo with a peer, in the peer's environment, or with edgepress. Earlier results are reused."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import yaml

from ... import __version__
from ...common.code_fingerprint import code_fingerprint
from ...pipelines.hub import DEMO_PIPELINE
from ...pipelines.sampling import batched, resolve_sampling
from ...prompts.prompt import prompt_seed
from ...prompts.reader import load_prompts
from ...prompts.sets import resolve_prompt_set
from ...quantize.pipeline import quantize_pipeline
from ...quantize.plan import build_plan
from ...quantize.writer import AWQ_TENSOR_NAMES
from ...recipes.schema import Recipe
from ...storage.checkpoint import Checkpoint
from ...storage.files import write_json
from ..common.process import measure_command
from .catalog import EdgepressMethod, Peer
from .environments import ensure_environment, read_requirements
from .errors import PeerError, find_cause
from .workers.job import Batch, Outcome, QuantizeJob

FOLDER = Path(__file__).parent
PACKAGE_ROOT = FOLDER.parents[1]


@dataclass(frozen=True)
class QuantizedRun:
    """One quantization of the demo.

    Attributes:
        version: Version of the tool.
        bits_per_weight: Bits stored per weight, including scales and zero points.
        seconds: Time from the start of the process until the weights are quantized.
        peak_memory: Largest resident set of the process in bytes.
    """

    version: str
    bits_per_weight: float
    seconds: float
    peak_memory: int


def quantize_with_peer(peer: Peer, recipe: Recipe, root: Path) -> tuple[QuantizedRun, Path]:
    """Quantizes the demo's layers with a peer.

    Args:
        peer: The peer.
        recipe: The recipe whose components and calibration prompts are used.
        root: Folder of all environments.

    Returns:
        The run, and the folder that holds the dequantized layers as `layers.safetensors`.

    Raises:
        PeerError: The peer could not be installed, or it failed.
    """
    environment_folder = root / peer.environment
    job = make_job(peer, recipe)
    folder = environment_folder / peer.name
    code_files = [*sorted((FOLDER / "workers").glob("_*.py")), FOLDER / "workers" / f"{peer.worker}.py"]
    sources = [file.read_text("utf-8") for file in code_files]
    key = compute_digest(job.to_json(), read_requirements(peer.environment), *sources)
    return load_or_run(folder, key, lambda: _run_worker(peer, job, environment_folder, folder)), folder


def quantize_with_edgepress(method: EdgepressMethod, recipe: Recipe, root: Path) -> tuple[QuantizedRun, Path]:
    """Quantizes the demo with `edgepress quantize`.

    Returns:
        The run, and the artifact's folder.

    Raises:
        PeerError: The command failed.
    """
    folder = root / "edgepress" / method.name
    changed = make_recipe(method, recipe)
    key = compute_digest(changed.model_dump_json(), code_fingerprint(quantize_pipeline.__module__))
    return load_or_run(folder, key, lambda: _run_edgepress(changed, folder)), folder


def make_recipe(method: EdgepressMethod, recipe: Recipe) -> Recipe:
    """Returns the recipe with another method and group size."""
    scheme = recipe.quantize.scheme.model_copy(update={"group_size": method.group_size})
    quantize = recipe.quantize.model_copy(update={"method": method.method, "scheme": scheme})
    return recipe.model_copy(update={"quantize": quantize})


def make_job(peer: Peer, recipe: Recipe) -> QuantizeJob:
    """Returns the layers that edgepress quantizes, and the recipe's calibration prompts if the peer calibrates."""
    plan = build_plan(DEMO_PIPELINE, recipe.quantize)
    calibration = recipe.calibration
    sampling = resolve_sampling(calibration, DEMO_PIPELINE)
    prompts = load_prompts(resolve_prompt_set(DEMO_PIPELINE, calibration.prompts, "calibration"))[: calibration.count]
    batches = batched(prompts, sampling.batch_size) if peer.calibrates else ()
    return QuantizeJob(
        pipeline=str(DEMO_PIPELINE),
        layers={
            component.name: tuple(name for block in component.blocks for name in block.linears)
            for component in plan.components
        },
        dtype=peer.dtype,
        calibration=tuple(
            Batch(
                prompts=tuple(prompt.prompt for prompt in batch),
                seeds=tuple(prompt_seed(prompt.id, 0) for prompt in batch),
            )
            for batch in batches
        ),
        sampling={
            "height": sampling.height,
            "width": sampling.width,
            "num_inference_steps": sampling.steps,
            "guidance_scale": sampling.guidance,
        },
        options=peer.options,
    )


def compute_digest(*texts: str) -> str:
    """Returns a SHA-256 over several texts."""
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()


def load_or_run(folder: Path, key: str, run: Callable[[], QuantizedRun]) -> QuantizedRun:
    """Returns the result stored in a folder under the same key, or else empties the folder and runs."""
    file = folder / "run.json"
    if file.exists():
        content = json.loads(file.read_text("utf-8"))
        if content.pop("key") == key:
            return QuantizedRun(**content)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    result = run()
    write_json({"key": key} | asdict(result), file)
    return result


def _run_worker(peer: Peer, job: QuantizeJob, environment_folder: Path, folder: Path) -> QuantizedRun:
    python = ensure_environment(peer.environment, environment_folder)
    (folder / "job.json").write_text(job.to_json(), "utf-8")
    command = [str(python.absolute()), "-P", "-m", "workers", peer.worker, str((folder / "job.json").absolute())]
    started = time.time()
    peak_memory = _measure_command(["env", f"PYTHONPATH={FOLDER}", "HF_HUB_OFFLINE=1", *command], folder)[1]
    outcome = Outcome.read(folder / "outcome.json")
    return QuantizedRun(outcome.version, outcome.bits_per_weight, outcome.finished_at - started, peak_memory)


def _run_edgepress(recipe: Recipe, folder: Path) -> QuantizedRun:
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe.model_dump(mode="json")), "utf-8")
    command = [sys.executable, "-m", "edgepress", "quantize", "--recipe", str(file), "--output", str(folder)]
    seconds, peak_memory = _measure_command(command, folder)
    return QuantizedRun(__version__, measure_bits_per_weight(folder / "model", recipe), seconds, peak_memory)


def measure_bits_per_weight(model: Path, recipe: Recipe) -> float:
    """Returns the bits that a quantized demo stores per weight of the quantized layers."""
    bits = weights = 0
    for component in build_plan(DEMO_PIPELINE, recipe.quantize).components:
        checkpoint = Checkpoint(model / component.name)
        for name in (linear for block in component.blocks for linear in block.linears):
            weights += math.prod(component.checkpoint.shape(f"{name}.weight"))
            bits += sum(8 * checkpoint.load_tensor(f"{name}.{kind}").nbytes for kind in AWQ_TENSOR_NAMES)
    return bits / weights


def _measure_command(command: list[str], folder: Path) -> tuple[float, int]:
    """Returns the time in seconds and the peak resident set in bytes of a command.

    Raises:
        PeerError: The command failed, with the error in its log.
    """
    log = folder / "log.txt"
    try:
        cost = measure_command(command, log)
    except click.ClickException as error:
        raise PeerError(find_cause(log)) from error
    return cost.seconds, cost.peak_rss
