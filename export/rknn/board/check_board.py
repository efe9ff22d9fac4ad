"""Checks the parts of an RKNN artifact on a Rockchip board, and prints a report as JSON.

It runs each part on its golden inputs, and compares the output with that of the float graph. Run it in the artifact's
folder `rknn`, with rknn-toolkit-lite2 and numpy installed: python check_board.py > ../report.json

NOT VERIFIED by its authors: no board was available. Please send them the report.
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

NUM_TIMED_RUNS = 5  # of each part, after a first run that is not timed
DRIVER_VERSION_FILE = Path("/sys/kernel/debug/rknpu/version")
LIBRARY_FILES = (Path("/usr/lib/librknnrt.so"), Path("/usr/lib/aarch64-linux-gnu/librknnrt.so"))
LIBRARY_VERSION_MARKER = b"librknnrt version: "


def collect_versions(config: dict[str, Any]) -> dict[str, str]:
    """Returns the version of the toolkit that built the parts, and those of what runs them on this board."""
    return {
        "built with rknn-toolkit2": config["toolkit"],
        "rknn-toolkit-lite2": _get_package_version("rknn-toolkit-lite2"),
        "librknnrt": _read_library_version(),
        "driver": _read_driver_version(),
        "target": config["target"],
        "machine": f"{platform.machine()} {platform.release()}",
        "python": platform.python_version(),
    }


def find_outdated(versions: dict[str, str]) -> list[str]:
    """Returns a warning for each library that is older than the toolkit: it cannot load what that built."""
    built_with = versions["built with rknn-toolkit2"]
    return [
        f"{name} is {versions[name]}, but the parts were built with {built_with}. Install {built_with} or later."
        for name in ("rknn-toolkit-lite2", "librknnrt")
        if _parse_version(versions[name]) < _parse_version(built_with)
    ]


def check_part(folder: Path, part: str) -> dict[str, Any]:
    """Runs a part on its golden inputs, compares the output with the float one, and measures the time."""
    from rknnlite.api import RKNNLite

    model = RKNNLite()
    try:
        call, code = "load_rknn", model.load_rknn(str(folder / f"{part}.rknn"))
        if code == 0:
            call, code = "init_runtime", model.init_runtime()
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
        raw_output = model.inference(inputs=inputs, data_format=["nchw"] * len(inputs))[0]
        seconds.append(time.perf_counter() - started)
    output = np.asarray(raw_output, np.float64).reshape(expected.shape)
    norm, expected_norm = float(np.linalg.norm(output)), float(np.linalg.norm(expected))
    return {
        "relative error": float(np.linalg.norm(output - expected)) / expected_norm,
        "cosine": float((output * expected).sum()) / (norm * expected_norm),
        "finite": bool(np.isfinite(output).all()),
        "milliseconds": [round(1000 * duration, 2) for duration in sorted(seconds[1:])],
    }


def _get_package_version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _read_library_version() -> str:
    """Returns the version of librknnrt, which is a string in the library itself."""
    for path in LIBRARY_FILES:
        if path.exists():
            content = path.read_bytes()
            _, marker, rest = content.partition(LIBRARY_VERSION_MARKER)
            return rest[:21].split(b" ")[0].decode("ascii", "replace") if marker else "unknown"
    return "not found"


def _read_driver_version() -> str:
    try:
        return DRIVER_VERSION_FILE.read_text("ascii").strip()
    except OSError as error:
        return f"unknown ({error.strerror}; run as root to read {DRIVER_VERSION_FILE})"


def _parse_version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("-")[0].split(".") if part.isdigit())


def _get_simulated_error(part: dict[str, Any]) -> float:
    simulated = part["simulated"]
    error: float = simulated["relative_error"] if "relative_error" in simulated else simulated["relative"]
    return error


def main(folder: Path) -> None:
    """Checks all parts of a folder that run on the NPU."""
    config = json.loads((folder / "pipeline.json").read_text("utf-8"))
    versions = collect_versions(config)
    parts = [part for graph in config["graphs"].values() for part in graph if part["device"] == "npu"]
    report = {
        "versions": versions,
        "warnings": find_outdated(versions),
        "parts": {
            part["name"]: check_part(folder, part["name"]) | {"simulated": _get_simulated_error(part)} for part in parts
        },
    }
    json.dump(report, sys.stdout, indent=2)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main(Path(__file__).parent)
