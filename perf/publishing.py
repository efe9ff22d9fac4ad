"""Where the results of benchmarks are: those of different plans side by side, the latest complete ones on top.

bench/
  bench.json, bench.md                                      of the latest complete run
  100-images-of-smoke-128x128-8-steps-3f2a91c4/             the same files, of the last complete run with this plan
  100-images-of-smoke-128x128-8-steps-3f2a91c4-incomplete/  of the last run with this plan that ended early
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path

from ..storage.atomic_file import atomic_write
from ..storage.files import write_json
from ..storage.layout import CHECKSUMS_NAME
from ..storage.result_checksums import record_results
from .report import render_report
from .schema import BenchResults

RESULTS_FILE, REPORT_FILE = "bench.json", "bench.md"
INCOMPLETE_SUFFIX = "-incomplete"
DIGEST_DIGITS = 8
MAX_SET_NAME = 40  # characters
MACHINE_FIELDS = {"model", "cpu", "architecture", "cores", "memory"}  # what a machine is recognized by


def name_plan(results: BenchResults) -> str:
    """Returns a name such as `100-images-of-smoke-128x128-8-steps-3f2a91c4`.

    It ends with a digest of everything that the numbers depend on: settings, files, engine and machine.
    """
    settings = results.settings
    content = {
        "settings": settings.model_dump(mode="json"),
        "artifact": results.artifact_sha256,
        "engine": results.engine,
        "machine": results.machine.model_dump(mode="json", include=MACHINE_FIELDS),
    }
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:DIGEST_DIGITS]
    prompts = re.sub(r"[^\w.-]+", "-", Path(settings.prompt_set).stem)[:MAX_SET_NAME].strip("-.") or "prompts"
    images = f"{settings.num_images}-image{'' if settings.num_images == 1 else 's'}"
    steps = f"{settings.steps}-step{'' if settings.steps == 1 else 's'}"
    height, width = settings.size
    return f"{images}-of-{prompts}-{width}x{height}-{steps}-{digest}"


def publish_results(results: BenchResults, output: Path) -> Path:
    """Writes results and their report. Those of a run that ended early replace no complete ones.

    Args:
        results: The results.
        output: The folder of the latest results, and of a folder for those of every plan.

    Returns:
        The folder that has the results: `output`, or a folder in it for those of a run that ended early.
    """
    plan = name_plan(results)
    incomplete_folder = output / f"{plan}{INCOMPLETE_SUFFIX}"
    if results.incomplete_reason is not None:
        _write(results, incomplete_folder)
        return incomplete_folder
    _keep_earlier(output)
    _write(results, output / plan)
    _write(results, output)
    shutil.rmtree(incomplete_folder, ignore_errors=True)
    return output


def _write(results: BenchResults, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    report = render_report(results)
    with record_results((RESULTS_FILE, REPORT_FILE), folder):
        write_json(results.model_dump(mode="json"), folder / RESULTS_FILE)
        atomic_write(folder / REPORT_FILE, lambda temporary: temporary.write_text(report, "utf-8"))


def _keep_earlier(output: Path) -> None:
    """Moves results on top that are in no folder of a plan, as earlier versions wrote them, to one."""
    files = [output / name for name in (RESULTS_FILE, REPORT_FILE) if (output / name).is_file()]
    if not files:
        return
    folder = output / _find_name(files[0])
    if (folder / RESULTS_FILE).is_file() and (folder / CHECKSUMS_NAME).is_file():
        return
    folder.mkdir(exist_ok=True)
    with record_results((RESULTS_FILE, REPORT_FILE), folder):
        for file in files:
            shutil.copyfile(file, folder / file.name)
    # The folder and its list of hashes are whole. If this is interrupted, the new results replace what is left.
    with record_results((RESULTS_FILE, REPORT_FILE), output):
        for file in reversed(files):  # the report follows from the results
            file.unlink()


def _find_name(file: Path) -> str:
    """The name of the folder that results belong to; one of its own for a file that cannot be read."""
    content = file.read_bytes()
    try:
        results = BenchResults.model_validate_json(content)
    except ValueError:
        return f"earlier-{hashlib.sha256(content).hexdigest()[:DIGEST_DIGITS]}"
    name = name_plan(results)
    return name if results.incomplete_reason is None else f"{name}{INCOMPLETE_SUFFIX}"
