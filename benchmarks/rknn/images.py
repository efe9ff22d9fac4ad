"""What precision costs the demo's pictures on Rockchip's NPUs, as rknn-toolkit2 simulates them.

`make bench-rknn-pictures`. The demo is pressed for the RK3588 and exported in fp16 and in w8a8, which keeps layers that
lose much in float16; and some held-out prompts are painted by each through the simulator, beside the reference in
torch: the commands that users give, one process each. The simulator builds parts again, so that leaving the layers in
float16 out of what the second export tells paints as it would have without. Where the benchmark was cut, it goes on.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import yaml

from ...evaluate.results.schema import Results, ScoreGroup, load_results
from ...storage.files import write_json
from ..common.process import measure_command
from ..common.report import format_mean, render_table, write_section

PROMPTS = 32  # held-out ones: the first
RECIPE = {
    "device": "npu",
    "quantize": {
        "components": ["transformer", "text_encoder"],
        "also": {
            "int8": {"bits": 8, "group_size": "channel", "zero_point": False, "narrow": True, "activations": "static"}
        },
    },
    "rknn": {"target": "rk3588"},
}


def prepare_artifacts(folder: Path) -> dict[str, Path]:
    """The artifacts by what their pictures are called."""
    mixed = export_artifact("w8a8", folder)
    return {"fp16": export_artifact("fp16", folder), "mixed": mixed, "w8a8": drop_float_layers(mixed, folder / "plain")}


def drop_float_layers(mixed: Path, artifact: Path) -> Path:
    """The same artifact with every layer that can be in 8 bits, made where it is not there yet."""
    if not artifact.exists():
        new = artifact.with_suffix(".new")
        shutil.rmtree(new, ignore_errors=True)
        shutil.copytree(mixed, new)
        file = new / "rknn" / "pipeline.json"
        content = json.loads(file.read_text("utf-8"))
        for part in (part for parts in content["graphs"].values() for part in parts):
            part["float_layers"] = []
        write_json(content, file)
        new.rename(artifact)
    return artifact


def export_artifact(precision: str, folder: Path) -> Path:
    """The artifact of a precision, made where it is not there yet; what it was made from is pressed once for all."""
    artifact, quantized, recipe = folder / precision, folder / "pressed", folder / "recipe.yaml"
    if not (artifact / "rknn").exists():
        recipe.write_text(yaml.safe_dump(RECIPE), "utf-8")
        options = ["--recipe", str(recipe), "--output", str(quantized)]
        if not (quantized / "model").exists():
            run_edgepress(["quantize", *options], folder / "quantize.log")
        run_edgepress(["export", "rknn", *options, "--precision", precision], folder / f"{precision}.log")
        artifact.mkdir(exist_ok=True)
        shutil.move(quantized / "rknn", artifact / "rknn")
    return artifact


def evaluate_artifacts(artifacts: Mapping[str, Path], folder: Path, prompts: int) -> Results:
    """The evaluation of the artifacts by name."""
    candidates = [word for name, path in artifacts.items() for word in ("--candidate", f"{name}={path}")]
    options = ["--recipe", str(folder / "recipe.yaml"), "--limit", str(prompts), "--no-gates", "--no-noise-floor"]
    output = folder / "evaluation"
    run_edgepress(["evaluate", *options, *candidates, "--output", str(output)], folder / "evaluate.log")
    return load_results(output / "results.json")


def run_edgepress(arguments: list[str], log: Path) -> None:
    """Runs a command as a user does."""
    measure_command([sys.executable, "-m", "edgepress", *arguments], log)


def render_section(results: Results, artifacts: Mapping[str, Path]) -> str:
    """The body of the section in docs/benchmarks.md."""
    rows = [_row(name, results.variants[f"{name}-rknn"].groups[0], path) for name, path in artifacts.items()]
    first = next(iter(results.variants.values()))
    reference = first.groups[0].image_scores["text_accuracy"].reference
    return "\n\n".join(
        [
            "## What precision costs the demo's pictures on the RK3588",
            f"The demo's graphs in parts for the NPU, in rknn-toolkit2's simulator, beside the reference in torch: "
            f"{first.num_prompts} held-out prompts. Text is read by OCR, {reference.mean:.1%} of it in the reference's "
            "pictures. mixed: what `--precision w8a8` publishes, with so many layers in float16; w8a8: the same with "
            "every layer in 8 bits but the VAE's, refused where a part is further than 0.2 from its float graph.",
            render_table(
                ["precision", "PSNR, dB", "worst", "CLIP-I", "text accuracy (drop)", "layers in float16"], rows
            ),
        ]
    )


def _row(name: str, group: ScoreGroup, artifact: Path) -> list[str]:
    graphs = json.loads((artifact / "rknn" / "pipeline.json").read_text("utf-8"))["graphs"]
    parts = [part for found in graphs.values() for part in found]
    psnr, text = group.pair_scores["psnr"], group.image_scores["text_accuracy"]
    return [
        name,
        format_mean(psnr.mean),
        f"{psnr.worst:.1f}",
        format_mean(group.pair_scores["clip_i"].mean, 1, 4),
        f"{text.variant.mean:.1%} ({format_mean(text.drop, 100, 1)})",
        f"{_count_float_layers(parts)} of {sum(part['operators']['npu'] for part in parts)}",
    ]


def _count_float_layers(parts: Sequence[Mapping[str, Any]]) -> int:
    return sum(len(part["float_layers"]) if part["quantized"] else part["operators"]["npu"] for part in parts)


@click.command(help=__doc__)
@click.option("--folder", type=click.Path(path_type=Path), default=Path("artifacts/npu-pictures"), show_default=True)
@click.option("--prompts", type=click.IntRange(1), default=PROMPTS, show_default=True)
def main(folder: Path, prompts: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    artifacts = prepare_artifacts(folder)
    body = render_section(evaluate_artifacts(artifacts, folder, prompts), artifacts)
    if prompts == PROMPTS:
        write_section("npu-pictures", "make bench-rknn-pictures", body)
    click.echo(body)


if __name__ == "__main__":
    main()
