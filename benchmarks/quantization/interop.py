"""Checks that stock transformers reads a quantized text encoder exactly as edgepress does.

`make bench-interop` creates an environment without edgepress in build/interop, with the AWQ backend that transformers
requires, and quantizes the demo.
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

from ...common.markdown_table import render_table
from ...numerics.awq_packing import AwqTensors, unpack_awq
from ...numerics.int4_matmul import dequantize_awq
from ..common.report import write_section
from .interop_worker import TOKEN_IDS

ROOT = Path(__file__).parents[2]
WORKER = Path(__file__).with_name("interop_worker.py")
BACKEND = "gptqmodel==7.7.0"
# The dependencies of the backend. The backend itself is installed without dependencies: it asks for a newer torch than
# constraints.txt pins, but works with that one.
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
SHARED_REQUIREMENTS = (  # pinned by constraints.txt
    "transformers",
    "accelerate",
    "safetensors",
    "numpy",
    "pillow",
    "protobuf",
    "requests",
)
BUILD_REQUIREMENTS = ("setuptools", "wheel", "ninja", "packaging")


class EncoderComparison:
    """A quantized text encoder as stock transformers reads it, and as edgepress reads it.

    Args:
        folder: The text encoder.
        stock_tensors: What `interop_worker.py` wrote.
    """

    def __init__(self, folder: Path, stock_tensors: dict[str, Tensor]) -> None:
        self.folder = folder
        self.stock_tensors = stock_tensors
        self.stored_tensors: dict[str, Tensor] = {}
        for file in sorted(folder.glob("*.safetensors")):
            self.stored_tensors |= load_file(file)

    def linear_names(self) -> list[str]:
        """Returns the names of the quantized linear layers."""
        return sorted(name.removesuffix(".qweight") for name in self.stored_tensors if name.endswith(".qweight"))

    def find_differences(self) -> list[str]:
        """Returns the names of tensors that are missing in stock transformers or not bitwise equal."""
        expected = {
            name: tensor for linear in self.linear_names() for name, tensor in self.expected_tensors(linear).items()
        }
        return [name for name, tensor in expected.items() if not _is_equal(self.stock_tensors.get(name), tensor)]

    def expected_tensors(self, linear: str) -> dict[str, Tensor]:
        """Returns what the worker should write for a linear layer, as edgepress computes it."""
        packed = AwqTensors(*(self.stored_tensors[f"{linear}.{kind}"] for kind in AwqTensors._fields))
        codes, qparams = unpack_awq(packed)
        return {
            f"codes.{linear}": codes.T,
            f"zeros.{linear}": qparams.zero_points.T,
            f"weight.{linear}": dequantize_awq(packed, torch.float16).T,
        }

    def hidden_state_error(self) -> float:
        """Returns the relative difference of the hidden states, both computed in float16."""
        expected, actual = compute_hidden_states(self.folder).double(), self.stock_tensors["hidden"].double()
        return float((expected - actual).norm() / expected.norm())


def _is_equal(actual: Tensor | None, expected: Tensor) -> bool:
    return actual is not None and actual.dtype == expected.dtype and torch.equal(actual, expected)


def compute_hidden_states(folder: Path) -> Tensor:
    """Returns the second-to-last hidden states of `TOKEN_IDS` in float16, with the loader of edgepress."""
    from transformers import AutoModel

    from ... import loading  # noqa: F401  registers the loader

    model = AutoModel.from_pretrained(folder, dtype=torch.float16)
    with torch.no_grad():
        states: Tensor = model(torch.tensor([list(TOKEN_IDS)]), output_hidden_states=True).hidden_states[-2]
    return states


def ensure_environment(folder: Path) -> Path:
    """Creates an environment with stock transformers and its AWQ backend, if necessary; returns its interpreter."""
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
    """Runs a command without showing its output.

    Raises:
        ClickException: The command failed. The message holds the end of its output.
    """
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    if process.returncode:
        raise click.ClickException(f"{' '.join(command[:6])} ... failed:\n{(process.stdout + process.stderr)[-2000:]}")


def render_section(comparison: EncoderComparison, differences: list[str]) -> str:
    """Returns the section of docs/benchmarks/interop.md."""
    rows = [
        ["linear layers loaded", str(len(comparison.linear_names()))],
        ["tensors that differ (codes, zero points, weights in float16)", str(len(differences))],
        ["hidden states, relative difference in float16", f"{comparison.hidden_state_error():.1e}"],
    ]
    return "\n\n".join(
        [
            "## The text encoder in stock transformers",
            f"The demo's text encoder, quantized by rounding and opened without edgepress, with transformers and "
            f"{BACKEND}. Every key of the file was matched. The last layer, whose output the pipeline never uses, is "
            "not stored: stock transformers initializes it randomly. Compared with what edgepress reads:",
            render_table(["", ""], rows),
        ]
    )


@click.command(help=__doc__)
@click.option("--folder", type=click.Path(path_type=Path), default=ROOT / "build" / "interop", help="Work folder.")
@click.option("--print", "print_only", is_flag=True, help="Do not write to docs/benchmarks.")
def main(folder: Path, print_only: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    python = ensure_environment(folder)
    artifact, tensors = folder / "quantized", folder / "stock.safetensors"
    quantize = [sys.executable, "-m", "edgepress", "quantize", "--recipe", "orin", "--method", "rtn", "--force"]
    run_command([*quantize, "--output", str(artifact)])
    text_encoder = artifact / "model" / "text_encoder"
    run_command([str(python), "-P", str(WORKER), str(text_encoder), str(tensors)])
    comparison = EncoderComparison(text_encoder, load_file(tensors))
    differences = comparison.find_differences()
    body = render_section(comparison, differences)
    if not print_only:
        write_section("interop", "make bench-interop", body)
    click.echo(body)
    if differences:
        raise click.ClickException(f"Tensors that differ: {', '.join(differences)}")


if __name__ == "__main__":
    main()
