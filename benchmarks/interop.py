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

from .. import products
from ..int4 import AwqTensors, unpack_awq
from .report import table, write_section
from .stock import TOKENS

ROOT = Path(__file__).parents[1]
STOCK = Path(__file__).with_name("stock.py")
BACKEND = "gptqmodel==7.7.0"
# What the backend needs. It is installed without its dependencies, of which it asks for a newer torch than this project
# pins; it works with this one.
NEEDS = (
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
SHARED = ("transformers", "accelerate", "safetensors", "numpy", "pillow", "protobuf", "requests")  # pinned for all
BUILDERS = ("setuptools", "wheel", "ninja", "packaging")


class Reading:
    """What stock transformers read of a pressed text encoder, beside what edgepress reads of the same file."""

    def __init__(self, folder: Path, stock: dict[str, Tensor]) -> None:
        self.folder, self.stock = folder, stock
        self.stored: dict[str, Tensor] = {}
        for file in sorted(folder.glob("*.safetensors")):
            self.stored |= load_file(file)

    def linears(self) -> list[str]:
        return sorted(name.removesuffix(".qweight") for name in self.stored if name.endswith(".qweight"))

    def differing(self) -> list[str]:
        """The tensors that are not equal to the bit, or that stock transformers did not find."""
        expected = {name: tensor for linear in self.linears() for name, tensor in self.ours(linear).items()}
        return [name for name, tensor in expected.items() if not _equal(self.stock.get(name), tensor)]

    def ours(self, linear: str) -> dict[str, Tensor]:
        """What `stock.unpacked` writes of a linear, by edgepress."""
        packed = AwqTensors(*(self.stored[f"{linear}.{kind}"] for kind in AwqTensors._fields))
        codes, grid = unpack_awq(packed)
        return {
            f"codes.{linear}": codes.T,
            f"zeros.{linear}": grid.zeros.T,
            f"weight.{linear}": products.dequantized(packed, torch.float16).T,
        }

    def hidden_error(self) -> float:
        """The relative difference of the hidden states, both computed in float16."""
        ours, theirs = hidden_states(self.folder).double(), self.stock["hidden"].double()
        return float((ours - theirs).norm() / ours.norm())


def _equal(found: Tensor | None, expected: Tensor) -> bool:
    return found is not None and found.dtype == expected.dtype and torch.equal(found, expected)


def hidden_states(folder: Path) -> Tensor:
    """The second last hidden states of `stock.TOKENS` by edgepress's loader, in float16."""
    from transformers import AutoModel

    from .. import loading  # noqa: F401  registers the loader

    model = AutoModel.from_pretrained(folder, dtype=torch.float16)
    with torch.no_grad():
        states: Tensor = model(torch.tensor([list(TOKENS)]), output_hidden_states=True).hidden_states[-2]
    return states


def environment(folder: Path) -> Path:
    """The interpreter of an environment with stock transformers and its AWQ backend; made once."""
    python, mark = folder / "env" / "bin" / "python", folder / "env" / ".set-up"
    wanted = "\n".join((BACKEND, *NEEDS))
    if mark.exists() and mark.read_text("utf-8") == wanted:
        return python
    run([sys.executable, "-m", "venv", "--clear", str(folder / "env")])
    install = [str(python), "-m", "pip", "install", "--quiet", "--constraint", str(ROOT / "constraints.txt")]
    run([*install, "torch"])
    run([*install, *SHARED, *BUILDERS])
    run([*install, *NEEDS])
    run([*install, "--no-deps", "--no-build-isolation", BACKEND])
    mark.write_text(wanted, "utf-8")
    return python


def run(words: Sequence[str]) -> None:
    """Runs a command in silence.

    Raises:
        ClickException: it failed; with the end of what it said.
    """
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise click.ClickException(f"{' '.join(words[:6])} ... failed:\n{(done.stdout + done.stderr)[-2000:]}")


def body(reading: Reading, differing: list[str]) -> str:
    """The section of docs/benchmarks.md."""
    rows = [
        ["linears opened", str(len(reading.linears()))],
        ["tensors that differ (codes, zero points, weights in float16)", str(len(differing))],
        ["hidden states, relative difference in float16", f"{reading.hidden_error():.1e}"],
    ]
    return "\n\n".join(
        [
            "## The text encoder in stock transformers",
            f"The demo's text encoder, pressed by rounding, opened without edgepress: transformers and {BACKEND}, "
            "in which every key of the file found its place. The last layer, which the pipeline never reads, is not "
            "stored: stock transformers fills it with chance values. Compared with what edgepress reads:",
            table(["", ""], rows),
        ]
    )


@click.command(help=__doc__)
@click.option("--folder", type=click.Path(path_type=Path), default=ROOT / "build" / "interop", help="Where to work.")
@click.option("--print", "only_print", is_flag=True, help="Write nothing into docs/benchmarks.md.")
def main(folder: Path, only_print: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    python = environment(folder)
    pressed, read = folder / "pressed", folder / "read.safetensors"
    quantize = [sys.executable, "-m", "edgepress.cli", "quantize", "--recipe", "orin", "--method", "rtn", "--force"]
    run([*quantize, "--output", str(pressed)])
    text_encoder = pressed / "model" / "text_encoder"
    run([str(python), "-P", str(STOCK), str(text_encoder), str(read)])
    reading = Reading(text_encoder, load_file(read))
    differing = reading.differing()
    text = body(reading, differing)
    if not only_print:
        write_section("interop", "make bench-interop", text)
    click.echo(text)
    if differing:
        raise click.ClickException(f"not equal: {', '.join(differing)}")


if __name__ == "__main__":
    main()
