"""Whether stock transformers opens a pressed text encoder, and reads of it what edgepress reads, bit for bit.

`make bench-interop` makes an environment without edgepress in build/interop, with the AWQ backend that transformers
asks for, and presses the demo.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import click
import torch
from safetensors.torch import load_file
from torch import Tensor

from ...numerics import int4_matmul
from ...numerics.awq_packing import AwqTensors, unpack_awq
from ..common.report import render_table, write_section
from .interop_worker import TOKEN_IDS

ROOT = Path(__file__).parents[2]
WORKER = Path(__file__).with_name("interop_worker.py")
BACKEND = "gptqmodel==7.7.0"
# What the backend needs. It is installed without its dependencies, of which it asks for a newer torch than this project
# pins; it works with this one.
BACKEND_REQUIREMENTS = (
    "datasets==5.2.0",
    "defuser==0.0.28",
    "device-smi==0.5.7",
    "dill==0.4.1",
    "logbar==0.4.15",
    "pypcre==0.6.4",
    "threadpoolctl==3.8.0",
    "tokenicer==0.0.14",
    "torchao==0.18.0",
)
SHARED_REQUIREMENTS = (
    "transformers",
    "accelerate",
    "safetensors",
    "numpy",
    "pillow",
    "protobuf",
    "requests",
)  # pinned for all
BUILD_REQUIREMENTS = ("setuptools", "wheel", "ninja", "packaging")


class EncoderComparison:
    """What stock transformers read of a pressed text encoder, beside what edgepress reads of the same file."""

    def __init__(self, folder: Path, stock_tensors: dict[str, Tensor]) -> None:
        self.folder, self.stock = folder, stock_tensors
        self.stored_tensors: dict[str, Tensor] = {}
        for file in sorted(folder.glob("*.safetensors")):
            self.stored_tensors |= load_file(file)

    def linear_names(self) -> list[str]:
        return sorted(name.removesuffix(".qweight") for name in self.stored_tensors if name.endswith(".qweight"))

    def find_differences(self) -> list[str]:
        """The tensors that are not equal to the bit, or that stock transformers did not find."""
        expected = {
            name: tensor for linear in self.linear_names() for name, tensor in self.expected_tensors(linear).items()
        }
        return [name for name, tensor in expected.items() if not _equal(self.stock.get(name), tensor)]

    def expected_tensors(self, linear: str) -> dict[str, Tensor]:
        """What `stock.unpacked` writes of a linear, by edgepress."""
        packed = AwqTensors(*(self.stored_tensors[f"{linear}.{kind}"] for kind in AwqTensors._fields))
        codes, grid = unpack_awq(packed)
        return {
            f"codes.{linear}": codes.T,
            f"zeros.{linear}": grid.zero_points.T,
            f"weight.{linear}": int4_matmul.dequantize_awq(packed, torch.float16).T,
        }

    def hidden_state_error(self) -> float:
        """The relative difference of the hidden states, both computed in float16."""
        expected, actual = compute_hidden_states(self.folder).double(), self.stock["hidden"].double()
        return float((expected - actual).norm() / expected.norm())


def _equal(actual: Tensor | None, expected: Tensor) -> bool:
    return actual is not None and actual.dtype == expected.dtype and torch.equal(actual, expected)


def compute_hidden_states(folder: Path) -> Tensor:
    """The second last hidden states of `stock.TOKENS` by edgepress's loader, in float16."""
    from transformers import AutoModel

    from ... import loading  # noqa: F401  registers the loader

    model = AutoModel.from_pretrained(folder, dtype=torch.float16)
    with torch.no_grad():
        states: Tensor = model(torch.tensor([list(TOKEN_IDS)]), output_hidden_states=True).hidden_states[-2]
    return states


def ensure_environment(folder: Path) -> Path:
    """The interpreter of an environment with stock transformers and its AWQ backend; made once."""
    python, marker = folder / "env" / "bin" / "python", folder / "env" / ".set-up"
    requirements = "\n".join((BACKEND, *BACKEND_REQUIREMENTS))
    if marker.exists() and marker.read_text("utf-8") == requirements:
        return python
    run_command([sys.executable, "-m", "venv", "--clear", str(folder / "env")])
    install = [str(python), "-m", "pip", "install", "--quiet", "--constraint", str(ROOT / "constraints.txt")]
    run_command([*install, "torch"])
    run_command([*install, *SHARED_REQUIREMENTS, *BUILD_REQUIREMENTS])
    run_command([*install, *BACKEND_REQUIREMENTS])
    run_command([*install, "--no-deps", "--no-build-isolation", BACKEND])
    marker.write_text(requirements, "utf-8")
    return python


def run_command(command: Sequence[str]) -> None:
    """Runs a command in silence.

    Raises:
        ClickException: it failed; with the end of what it said.
    """
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    if process.returncode:
        raise click.ClickException(f"{' '.join(command[:6])} ... failed:\n{(process.stdout + process.stderr)[-2000:]}")


def render_section(comparison: EncoderComparison, differences: list[str]) -> str:
    """The section of docs/benchmarks.md."""
    rows = [
        ["linears opened", str(len(comparison.linear_names()))],
        ["tensors that differ (codes, zero points, weights in float16)", str(len(differences))],
        ["hidden states, relative difference in float16", f"{comparison.hidden_state_error():.1e}"],
    ]
    return "\n\n".join(
        [
            "## The text encoder in stock transformers",
            f"The demo's text encoder, pressed by rounding, opened without edgepress: transformers and {BACKEND}, "
            "in which every key of the file found its place. The last layer, which the pipeline never reads, is not "
            "stored: stock transformers fills it with chance values. Compared with what edgepress reads:",
            render_table(["", ""], rows),
        ]
    )


@click.command(help=__doc__)
@click.option("--folder", type=click.Path(path_type=Path), default=ROOT / "build" / "interop", help="Where to work.")
@click.option("--print", "only_print", is_flag=True, help="Write nothing into docs/benchmarks.md.")
def main(folder: Path, only_print: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    python = ensure_environment(folder)
    artifact, output = folder / "pressed", folder / "read.safetensors"
    quantize = [
        sys.executable,
        "-m",
        "edgepress.cli.main",
        "quantize",
        "--recipe",
        "orin",
        "--method",
        "rtn",
        "--force",
    ]
    run_command([*quantize, "--output", str(artifact)])
    text_encoder = artifact / "model" / "text_encoder"
    run_command([str(python), "-P", str(WORKER), str(text_encoder), str(output)])
    comparison = EncoderComparison(text_encoder, load_file(output))
    differences = comparison.find_differences()
    text = render_section(comparison, differences)
    if not only_print:
        write_section("interop", "make bench-interop", text)
    click.echo(text)
    if differences:
        raise click.ClickException(f"not equal: {', '.join(differences)}")


if __name__ == "__main__":
    main()
