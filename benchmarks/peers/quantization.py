"""Pressing with a peer, in its own environment, or with edgepress itself; what was pressed before is kept."""

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
from ...pipelines.hub import DEMO_PIPELINE
from ...pipelines.sampling import batched, prompt_seed, resolve_sampling
from ...prompts.prompt import load_prompts
from ...prompts.sets import resolve_prompt_set
from ...quantize.plan import build_plan
from ...quantize.writer import AWQ_TENSOR_NAMES
from ...recipes.schema import Recipe
from ...storage.checkpoint import Checkpoint
from ..common.process import measure_command
from .catalog import EdgepressMethod, Peer
from .environments import ensure_environment, read_requirements
from .failure import PeerError, find_cause
from .workers.job import Batch, Outcome, QuantizeJob

FOLDER = Path(__file__).parent
PACKAGE_ROOT = FOLDER.parents[1]  # the package's root


@dataclass(frozen=True)
class QuantizedRun:
    """What pressing gave: who did it, the bits stored for a weight, seconds until quantized, peak memory in bytes."""

    version: str
    bits_per_weight: float
    seconds: float
    peak_memory: int


def quantize_with_peer(peer: Peer, recipe: Recipe, root: Path) -> tuple[QuantizedRun, Path]:
    """Quantizes the demo's layers with a peer; gives the folder that holds them as `layers.safetensors`.

    Raises:
        PeerError: the peer could not be installed or failed.
    """
    environment_folder = root / peer.environment
    job = make_job(peer, recipe)
    folder = environment_folder / peer.name
    code_files = [*sorted((FOLDER / "workers").glob("_*.py")), FOLDER / "workers" / f"{peer.worker}.py"]
    key = compute_digest(
        job.to_json(), read_requirements(peer.environment), *(file.read_text("utf-8") for file in code_files)
    )
    return load_or_run(folder, key, lambda: _run_worker(peer, job, environment_folder, folder)), folder


def quantize_with_edgepress(method: EdgepressMethod, recipe: Recipe, root: Path) -> tuple[QuantizedRun, Path]:
    """Presses the demo with `edgepress quantize`; gives the artifact's folder.

    Raises:
        PeerError: it failed.
    """
    folder = root / "edgepress" / method.name
    quantize_recipe = make_recipe(method, recipe)
    key = compute_digest(quantize_recipe.model_dump_json(), *(file.read_text("utf-8") for file in _list_code_files()))
    return load_or_run(folder, key, lambda: _run_edgepress(quantize_recipe, folder)), folder


def make_recipe(method: EdgepressMethod, recipe: Recipe) -> Recipe:
    """The recipe with another method and group size."""
    scheme = recipe.quantize.scheme.model_copy(update={"group_size": method.group_size})
    changed = recipe.quantize.model_copy(update={"method": method.method, "scheme": scheme})
    return recipe.model_copy(update={"quantize": changed})


def make_job(peer: Peer, recipe: Recipe) -> QuantizeJob:
    """The layers that edgepress quantizes, and the pictures that it calibrates with."""
    plan = build_plan(DEMO_PIPELINE, recipe.quantize)
    calibration = recipe.calibration
    sampling = resolve_sampling(calibration, DEMO_PIPELINE)
    prompts = load_prompts(resolve_prompt_set(DEMO_PIPELINE, calibration.prompts, "calibration"))[: calibration.count]
    parts = batched(prompts, sampling.batch_size) if peer.calibrates else ()
    return QuantizeJob(
        pipeline=str(DEMO_PIPELINE),
        layers={part.name: tuple(name for unit in part.blocks for name in unit.linears) for part in plan.components},
        dtype=peer.dtype,
        calibration=tuple(
            Batch(tuple(one.prompt for one in part), tuple(prompt_seed(one.id, 0) for one in part)) for part in parts
        ),
        sampling={
            "height": sampling.height,
            "width": sampling.width,
            "num_inference_steps": sampling.steps,
            "guidance_scale": sampling.guidance,
        },
        options=peer.options,
    )


def compute_digest(*parts: str) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def load_or_run(folder: Path, key: str, run: Callable[[], QuantizedRun]) -> QuantizedRun:
    """What was made with the same key, or else made anew in an empty folder."""
    file = folder / "made.json"
    if file.exists():
        content = json.loads(file.read_text("utf-8"))
        if content.pop("key") == key:
            return QuantizedRun(**content)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    result = run()
    new = file.with_suffix(".new")
    new.write_text(json.dumps({"key": key} | asdict(result)), "utf-8")
    new.replace(file)
    return result


def _run_worker(peer: Peer, job: QuantizeJob, environment_folder: Path, folder: Path) -> QuantizedRun:
    python = ensure_environment(peer.environment, environment_folder)
    (folder / "job.json").write_text(job.to_json(), "utf-8")
    command = [str(python.absolute()), "-P", "-m", "workers", peer.worker, str((folder / "job.json").absolute())]
    started = time.time()
    peak = _measure_command(["env", f"PYTHONPATH={FOLDER}", "HF_HUB_OFFLINE=1", *command], folder)[1]
    outcome = Outcome.read(folder / "outcome.json")
    return QuantizedRun(outcome.version, outcome.bits_per_weight, outcome.finished_at - started, peak)


def _run_edgepress(recipe: Recipe, folder: Path) -> QuantizedRun:
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe.model_dump(mode="json")), "utf-8")
    command = [sys.executable, "-m", "edgepress", "quantize", "--recipe", str(file), "--output", str(folder)]
    seconds, peak = _measure_command(command, folder)
    return QuantizedRun(__version__, count_stored_bits(folder / "model", recipe), seconds, peak)


def count_stored_bits(model: Path, recipe: Recipe) -> float:
    """Stored bits a weight of the demo's layers in a pressed folder."""
    bits = weights = 0
    for part in build_plan(DEMO_PIPELINE, recipe.quantize).components:
        checkpoint = Checkpoint(model / part.name)
        for name in (linear for unit in part.blocks for linear in unit.linears):
            weights += math.prod(part.checkpoint.shape(f"{name}.weight"))
            bits += sum(8 * checkpoint.load_tensor(f"{name}.{kind}").nbytes for kind in AWQ_TENSOR_NAMES)
    return bits / weights


def _measure_command(command: list[str], folder: Path) -> tuple[float, int]:
    """Seconds and the peak resident set in bytes of a command.

    Raises:
        PeerError: it failed, with the error that its log names.
    """
    log = folder / "log.txt"
    try:
        cost = measure_command(command, log)
    except click.ClickException as error:
        raise PeerError(find_cause(log)) from error
    return cost.seconds, cost.peak_rss


def _list_code_files() -> list[Path]:
    return [PACKAGE_ROOT / "int4.py", *sorted((PACKAGE_ROOT / "quantize").glob("*.py"))]
