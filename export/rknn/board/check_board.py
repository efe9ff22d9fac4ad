"""Replays the golden inputs of an RKNN artifact on a Rockchip board, and prints a report to send back.

NOT VERIFIED by its authors: no board was at hand. Run it where the artifact's folder `rknn` is, with rknn-toolkit-lite2
and numpy installed: python check_board.py > report.json
"""

from __future__ import annotations

import json
import platform
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

NUM_TIMED_RUNS = 5  # runs of a part that are timed, after one that is not
DRIVER_VERSION_FILE = Path("/sys/kernel/debug/rknpu/version")
LIBRARY_FILES = (Path("/usr/lib/librknnrt.so"), Path("/usr/lib/aarch64-linux-gnu/librknnrt.so"))


def collect_versions(content: dict[str, Any]) -> dict[str, str]:
    """What the parts were built with, and what runs them here."""
    return {
        "built with rknn-toolkit2": content["toolkit"],
        "rknn-toolkit-lite2": _get_package_version("rknn-toolkit-lite2"),
        "librknnrt": _read_library_version(),
        "driver": _read_driver_version(),
        "target": content["target"],
        "machine": f"{platform.machine()} {platform.release()}",
        "python": platform.python_version(),
    }


def find_outdated(found: dict[str, str]) -> list[str]:
    """What does not fit together: a runtime older than the toolkit cannot load what that built."""
    built = found["built with rknn-toolkit2"]
    return [
        f"{name} is {found[name]}, and the parts were built with {built}: use one that is as new"
        for name in ("rknn-toolkit-lite2", "librknnrt")
        if _parse_version(found[name]) < _parse_version(built)
    ]


def check_part(folder: Path, part: str) -> dict[str, Any]:
    """Loads a part, runs it on its golden inputs, and says how far it is from the float output and how long it took."""
    from rknnlite.api import RKNNLite

    model = RKNNLite()
    try:
        for call, code in (
            ("load_rknn", model.load_rknn(str(folder / f"{part}.rknn"))),
            ("init", model.init_runtime()),
        ):
            if code != 0:
                return {"failed": f"{call} returned {code}"}
        with np.load(folder / "golden" / f"{part}.npz") as golden:
            inputs = [golden[name].astype(np.float32) for name in golden.files if name.startswith("in.")]
            expected = golden["out"].astype(np.float64)
        return _run_part(model, inputs, expected)
    finally:
        model.release()


def _run_part(model: Any, inputs: list[Any], expected: Any) -> dict[str, Any]:
    seconds = []
    for _ in range(NUM_TIMED_RUNS + 1):
        started = time.perf_counter()
        output = model.inference(inputs=inputs, data_format=["nchw"] * len(inputs))[0]
        seconds.append(time.perf_counter() - started)
    found = np.asarray(output, np.float64).reshape(expected.shape)
    norms = float(np.linalg.norm(found)), float(np.linalg.norm(expected))
    return {
        "relative error": float(np.linalg.norm(found - expected)) / norms[1],
        "cosine": float((found * expected).sum()) / (norms[0] * norms[1]),
        "finite": bool(np.isfinite(found).all()),
        "milliseconds": [round(1000 * one, 2) for one in sorted(seconds[1:])],
    }


def _get_package_version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _read_library_version() -> str:
    """The version that librknnrt's own text says."""
    for path in LIBRARY_FILES:
        if path.exists():
            text = path.read_bytes()
            at = text.find(b"librknnrt version: ")
            return text[at + 19 : at + 40].split(b" ")[0].decode("ascii", "replace") if at >= 0 else "unknown"
    return "not found"


def _read_driver_version() -> str:
    try:
        return DRIVER_VERSION_FILE.read_text("ascii").strip()
    except OSError as error:
        return f"unknown ({error.strerror}; run as root to read {DRIVER_VERSION_FILE})"


def _parse_version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("-")[0].split(".") if part.isdigit())


def main(folder: Path) -> None:
    """Checks all parts of a folder."""
    content = json.loads((folder / "pipeline.json").read_text("utf-8"))
    found = collect_versions(content)
    parts = [part for graph in content["graphs"].values() for part in graph if part["device"] == "npu"]
    report = {
        "versions": found,
        "warnings": find_outdated(found),
        "parts": {
            part["name"]: check_part(folder, part["name"]) | {"simulated": part["simulated"]["relative"]}
            for part in parts
        },
    }
    json.dump(report, sys.stdout, indent=2)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main(Path(__file__).parent)
