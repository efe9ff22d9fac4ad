"""The pages in docs/benchmarks/: sections that benchmarks rewrite in place, and the cells of their tables."""

from __future__ import annotations

import datetime
import os
import platform
import re
from pathlib import Path

import click

from ... import __version__
from ...evaluate.results.schema import Results, ScoreGroup
from ...evaluate.stats.bootstrap import MeanCI, bootstrap_mean
from ...storage.manifest import library_versions

FOLDER = Path(__file__).parents[2] / "docs" / "benchmarks"
PAGES = {  # the page of each section
    "quality": "quality.md",
    "ladder": "ladder.md",
    "budget": "budget.md",
    "tuning": "tuning.md",
    "tuning-solutions": "tuning.md",
    "peers": "peers.md",
    "transfer-text-embedder": "transfer.md",
    "transfer-text-recognizer": "transfer.md",
    "cost": "cost.md",
    "cost-commands": "cost.md",
    "full-size-transformer": "full-size.md",
    "full-size-text-encoder": "full-size.md",
    "full-size-whole": "full-size.md",
    "full-size-12-billion": "full-size.md",
    "full-size-20-billion": "full-size.md",
    "full-size-ratio-transformer": "full-size.md",
    "full-size-ratio-text-encoder": "full-size.md",
    "kernels": "kernels.md",
    "graphs-demo": "onnx.md",
    "graphs-medium": "onnx.md",
    "images-demo": "onnx.md",
    "images-medium": "onnx.md",
    "onnx-full-size-transformer": "onnx.md",
    "onnx-full-size-text-encoder": "onnx.md",
    "onnx-session-options": "../onnx.md",
    "openvino-demo": "openvino.md",
    "openvino-medium": "openvino.md",
    "openvino-optimum-intel": "openvino.md",
    "npu-images": "rknn.md",
    "npu-folding": "rknn.md",
    "npu": "rknn.md",
    "evaluate": "evaluation.md",
    "ocr": "evaluation.md",
    "interop": "interop.md",
    "interop-exports": "interop.md",
    "interop-full-size": "interop.md",
    "arm64-cortex-a76": "arm64.md",
    "arm64-cortex-a72": "arm64.md",
    "step-cache": "../onnx.md",
    "device-artifacts": "artifacts.md",
    "interop-gguf": "interop.md",
    "server": "serving.md",
    "soak": "serving.md",
    "clip": "clip.md",
    "families": "families.md",
    "lora": "../lora.md",
    "convolutions": "../recipes.md",
    "reliability-fuzz": "../reliability.md",
    "tampering": "../reliability.md",
    "faults-publish": "../reliability.md",
    "faults-quantize": "../reliability.md",
    "faults-quantize---force": "../reliability.md",
    "faults-evaluate": "../reliability.md",
    "faults-export-onnx": "../reliability.md",
    "faults-export-rknn": "../reliability.md",
    "faults-generate": "../reliability.md",
    "faults-clean": "../reliability.md",
}
CANDIDATE_NAME = "quantized"  # of the only candidate in an evaluation


def write_section(name: str, command: str, body: str) -> None:
    """Replaces the section between the markers of `name` on its page, or adds it at the end of the page.

    Args:
        name: Name of the section, for example "full-size-transformer".
        command: The command that produced it.
        body: Markdown, beginning with a heading of level 2.
    """
    page = FOLDER / PAGES[name]
    text = page.read_text("utf-8")
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    section = f"{begin}\n{body.strip()}\n\n*`{command}`, {describe_machine()}.*\n{end}"
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    replaced = pattern.sub(lambda _: section, text) if pattern.search(text) else f"{text.rstrip()}\n\n{section}\n"
    page.write_text(replaced, "utf-8")


def describe_machine() -> str:
    """Returns the machine, the library versions and the date on one line."""
    versions = library_versions()
    libraries = ", ".join(f"{name} {versions[name]}" for name in ("torch", "diffusers", "transformers"))
    cpu = f"{len(os.sched_getaffinity(0))} cores of {_read_cpu_name()}"
    return f"{cpu}; edgepress {__version__}, {libraries}; {datetime.date.today().isoformat()}"


def _read_cpu_name() -> str:
    match = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text("utf-8"))
    return match[1] if match else platform.processor()


def get_overall_scores(results: Results) -> ScoreGroup:
    """Returns the scores of the candidate over all prompts."""
    return results.variants[CANDIDATE_NAME].groups[0]


def compare_paired_psnr(
    better: Results, base: Results, name: str = CANDIDATE_NAME, base_name: str = CANDIDATE_NAME
) -> MeanCI:
    """Returns the mean paired difference in PSNR over all prompts, in dB.

    Images that are identical to the reference have no PSNR and are left out.

    Args:
        better: Results of one candidate.
        base: Results of the other one, of the same prompts.
        name: Name of the first candidate in its results.
        base_name: Name of the other one.

    Raises:
        ClickException: No pair of images differs from the reference.
    """
    differences = []
    for sample, base_sample in zip(better.samples, base.samples, strict=True):
        psnr = sample.variants[name].values["psnr"]
        base_psnr = base_sample.variants[base_name].values["psnr"]
        if psnr is not None and base_psnr is not None:
            differences.append((psnr - base_psnr, sample.prompt.id))
    mean = bootstrap_mean([difference for difference, _ in differences], [prompt for _, prompt in differences])
    if mean is None:
        raise click.ClickException("Nothing to compare: no image differs from the reference.")
    return mean


def format_mean(mean: MeanCI, factor: float = 1.0, digits: int = 2) -> str:
    """Formats a mean with its 95 % interval, if it has one."""
    if mean.low is None or mean.high is None:
        return f"{factor * mean.mean:.{digits}f}"
    low, high = factor * mean.low, factor * mean.high
    return f"{factor * mean.mean:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
