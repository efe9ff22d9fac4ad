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
from ...checkpoint import Checkpoint
from ...prompts import load_prompts
from ...quantize.plan import make_plan
from ...quantize.write import PACKED
from ...recipe import Recipe
from ...sampling import batches, sampling_of, seed_of
from ...sources import DEMO, prompt_file
from ..process import measured
from .catalog import Own, Peer
from .environments import python_of, requirements
from .failure import PeerError, cause
from .workers.job import Batch, Job, Outcome

HERE = Path(__file__).parent
CODE = HERE.parents[1]  # the package's root


@dataclass(frozen=True)
class Made:
    """What pressing gave: who did it, the bits stored for a weight, seconds until quantized, peak memory in bytes."""

    version: str
    bits_per_weight: float
    seconds: float
    peak: int


def press_peer(peer: Peer, recipe: Recipe, root: Path) -> tuple[Made, Path]:
    """Quantizes the demo's layers with a peer; gives the folder that holds them as `layers.safetensors`.

    Raises:
        PeerError: the peer could not be installed or failed.
    """
    home = root / peer.environment
    job = job_of(peer, recipe)
    folder = home / peer.name
    code = [*sorted((HERE / "workers").glob("_*.py")), HERE / "workers" / f"{peer.worker}.py"]
    key = digest(job.to_json(), requirements(peer.environment), *(file.read_text("utf-8") for file in code))
    return _kept(folder, key, lambda: _run_worker(peer, job, home, folder)), folder


def press_own(own: Own, recipe: Recipe, root: Path) -> tuple[Made, Path]:
    """Presses the demo with `edgepress quantize`; gives the artifact's folder.

    Raises:
        PeerError: it failed.
    """
    folder = root / "edgepress" / own.name
    wanted = recipe_of(own, recipe)
    key = digest(wanted.model_dump_json(), *(file.read_text("utf-8") for file in _own_code()))
    return _kept(folder, key, lambda: _run_own(wanted, folder)), folder


def recipe_of(own: Own, recipe: Recipe) -> Recipe:
    """The recipe with another method and group size."""
    scheme = recipe.quantize.scheme.model_copy(update={"group_size": own.group_size})
    changed = recipe.quantize.model_copy(update={"method": own.method, "scheme": scheme})
    return recipe.model_copy(update={"quantize": changed})


def job_of(peer: Peer, recipe: Recipe) -> Job:
    """The layers that edgepress quantizes, and the pictures that it calibrates with."""
    plan = make_plan(DEMO, recipe.quantize)
    pictures = recipe.calibration
    sampling = sampling_of(pictures, DEMO)
    prompts = load_prompts(prompt_file(DEMO, pictures.prompts, "calibration"))[: pictures.count]
    parts = batches(prompts, sampling.batch) if peer.calibrates else ()
    return Job(
        pipeline=str(DEMO),
        layers={part.name: tuple(name for unit in part.units for name in unit.linears) for part in plan.components},
        dtype=peer.dtype,
        calibration=tuple(
            Batch(tuple(one.prompt for one in part), tuple(seed_of(one.id, 0) for one in part)) for part in parts
        ),
        sampling={
            "height": sampling.height,
            "width": sampling.width,
            "num_inference_steps": sampling.steps,
            "guidance_scale": sampling.guidance,
        },
        options=peer.options,
    )


def digest(*parts: str) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _kept(folder: Path, key: str, make: Callable[[], Made]) -> Made:
    """What was made with the same key, or else made anew in an empty folder."""
    file = folder / "made.json"
    if file.exists():
        content = json.loads(file.read_text("utf-8"))
        if content.pop("key") == key:
            return Made(**content)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    made = make()
    new = file.with_suffix(".new")
    new.write_text(json.dumps({"key": key} | asdict(made)), "utf-8")
    new.replace(file)
    return made


def _run_worker(peer: Peer, job: Job, home: Path, folder: Path) -> Made:
    python = python_of(peer.environment, home)
    (folder / "job.json").write_text(job.to_json(), "utf-8")
    words = [str(python.absolute()), "-P", "-m", "workers", peer.worker, str((folder / "job.json").absolute())]
    started = time.time()
    peak = _measured(["env", f"PYTHONPATH={HERE}", "HF_HUB_OFFLINE=1", *words], folder)[1]
    outcome = Outcome.read(folder / "outcome.json")
    return Made(outcome.version, outcome.bits_per_weight, outcome.finished - started, peak)


def _run_own(recipe: Recipe, folder: Path) -> Made:
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe.model_dump(mode="json")), "utf-8")
    words = [sys.executable, "-m", "edgepress.cli", "quantize", "--recipe", str(file), "--output", str(folder)]
    seconds, peak = _measured(words, folder)
    return Made(__version__, own_bits(folder / "model", recipe), seconds, peak)


def own_bits(model: Path, recipe: Recipe) -> float:
    """Stored bits a weight of the demo's layers in a pressed folder."""
    bits = weights = 0
    for part in make_plan(DEMO, recipe.quantize).components:
        pressed = Checkpoint(model / part.name)
        for name in (linear for unit in part.units for linear in unit.linears):
            weights += math.prod(part.checkpoint.shape(f"{name}.weight"))
            bits += sum(8 * pressed.tensor(f"{name}.{kind}").nbytes for kind in PACKED)
    return bits / weights


def _measured(words: list[str], folder: Path) -> tuple[float, int]:
    """Seconds and the peak resident set in bytes of a command.

    Raises:
        PeerError: it failed, with the error that its log names.
    """
    log = folder / "log.txt"
    try:
        cost = measured(words, log)
    except click.ClickException as error:
        raise PeerError(cause(log)) from error
    return cost.seconds, cost.peak_rss


def _own_code() -> list[Path]:
    return [CODE / "int4.py", *sorted((CODE / "quantize").glob("*.py"))]
