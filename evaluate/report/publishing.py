"""Where the results and reports of evaluations are: those of different plans side by side, the latest ones on top.

    evaluation/
      results.json, report.html, report.md, junit.xml          of the latest run
      64-prompts-of-evaluation-128x128-8-steps-3f2a91c4/        the same files, of the last run with this plan

Nothing is touched before a run has been checked. Then the latest files are taken from the top, so that no older verdict
stands there if the run fails; they remain in the folder of their plan.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from ...common.errors import UserError
from ...storage.layout import CHECKSUMS_NAME
from ...storage.result_checksums import record_results
from ..results.plan_name import name_plan
from ..results.results_file import load_results, save_results
from ..results.schema import Results
from .writer import REPORT_FILES, write_report

RESULTS_FILE = "results.json"
EVALUATION_FILES = (*REPORT_FILES, RESULTS_FILE)  # the results are the last to be removed: the others follow from them


def get_plan_folder(results: Results, output: Path) -> Path:
    """Returns the folder of the results' plan."""
    return output / name_plan(results)


def publish_results(results: Results, output: Path) -> None:
    """Writes results.json to the folder of its plan, and as the latest one to `output`.

    Reports of an earlier run of the plan are removed: they would show another verdict until the new ones are written.
    """
    folder = get_plan_folder(results, output)
    with record_results(EVALUATION_FILES, folder, output):
        save_results(results, folder / RESULTS_FILE)
        for name in REPORT_FILES:
            (folder / name).unlink(missing_ok=True)
        save_results(results, output / RESULTS_FILE)


def publish_reports(results: Results, output: Path) -> None:
    """Writes the reports next to both files of `publish_results`."""
    folders = get_plan_folder(results, output), output
    with record_results(EVALUATION_FILES, *folders):
        write_report(results, *folders)


def withdraw_latest(output: Path) -> Path | None:
    """Takes the latest results and reports from the top of a folder. They remain in the folder of their plan.

    Files that are in no such folder, as earlier versions wrote them, go there.

    Returns:
        The folder that has them now; None if there were none.
    """
    files = [output / name for name in EVALUATION_FILES if (output / name).is_file()]
    if not files:
        return None
    folder = output / _find_name(files)
    is_copy = files[-1].name == RESULTS_FILE and _have_equal_results(files[-1], folder / RESULTS_FILE)
    folder.mkdir(exist_ok=True)
    if not is_copy or not (folder / CHECKSUMS_NAME).is_file():
        with record_results(EVALUATION_FILES, folder):
            for file in () if is_copy else files:
                shutil.copyfile(file, folder / file.name)
    # The folder and its list of hashes are whole. If this is interrupted, the next run removes what is left.
    with record_results(EVALUATION_FILES, output):
        for file in files:
            file.unlink()
    return folder


def _find_name(files: list[Path]) -> str:
    """The name of the results' plan, or one of its own for files that cannot be read."""
    try:
        return name_plan(load_results(files[-1]))
    except UserError:
        return f"earlier-{hashlib.sha256(files[-1].read_bytes()).hexdigest()[:8]}"


def _have_equal_results(first: Path, second: Path) -> bool:
    """Whether two files hold the same results. Their bytes differ in where the images are from there."""
    try:
        return second.is_file() and load_results(first) == load_results(second)
    except UserError:
        return first.read_bytes() == second.read_bytes()
