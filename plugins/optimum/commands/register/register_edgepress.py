"""`optimum-cli export awq`: `edgepress quantize` with its recipe made of options.

optimum loads every file of this namespace whenever optimum-cli starts, so nothing else is imported before `run`.
There must be no `__init__.py` in the three folders above: they belong to all plugins together (PEP 420).
"""

from __future__ import annotations

import json
from argparse import ArgumentParser, ArgumentTypeError, BooleanOptionalAction, Namespace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from optimum.commands.base import BaseOptimumCLICommand, CommandInfo
from optimum.commands.export.base import ExportCommand

DESCRIPTION = (
    "Quantize a diffusers pipeline's weights to 4 bits, in AutoAWQ's GEMM layout. Runs `edgepress quantize`, whose "
    "recipes can say more than these options. Interrupted work resumes when the same command is given again."
)


def build_recipe(args: Namespace) -> dict[str, Any]:
    """The recipe that the options stand for; everything else has its default."""
    scheme = {"bits": args.bits, "group_size": args.group_size, "symmetric": not args.zero_point}
    return {
        "device": "generic",
        "quantize": {"method": args.method, "scheme": scheme},
        "calibration": {"prompts": args.dataset, "count": args.count, "steps": args.steps},
    }


def build_arguments(args: Namespace, recipe: Path) -> list[str]:
    """The command line of edgepress that the options stand for."""
    flags = [f"--{name}" for name in ("force", "restart") if getattr(args, name)]
    paths = ["--recipe", str(recipe), f"--model={args.model}", f"--output={args.output}"]
    return [*(["--debug"] if args.debug else []), "quantize", *paths, "--max-memory", str(args.max_memory), *flags]


class AwqExport(BaseOptimumCLICommand):
    """A command of optimum, which creates it twice: to parse its options, and to run it with what was given."""

    COMMAND = CommandInfo(name="awq", help="Quantize a diffusers pipeline to 4-bit AWQ weights (edgepress).")

    @staticmethod
    def parse_args(parser: ArgumentParser) -> None:
        parser.description = DESCRIPTION
        add = parser.add_argument
        add("-m", "--model", type=_require_name, required=True, help="A diffusers folder, a hub id, or 'demo'.")
        add(
            "-o",
            "--output",
            type=_require_name,
            required=True,
            help="Artifact folder; the pipeline is its subfolder model.",
        )
        add(
            "--dataset",
            default="auto",
            help="Calibration prompts: a JSON, CSV, text or Parquet file (default: the pipeline's).",
        )
        add(
            "--count", "--num-samples", type=_parse_positive, default=32, help="Calibration prompts used (default: 32)."
        )
        add("--steps", type=_parse_positive, default=8, help="Denoising steps in calibration (default: 8).")
        add("--bits", type=int, choices=(4,), default=4, help="Bits per weight (default: 4).")
        add(
            "--group-size",
            type=int,
            choices=(32, 64, 128),
            default=128,
            help="Input channels per scale (default: 128).",
        )
        add("--zero-point", action=BooleanOptionalAction, default=True, help="Quantize with zero points (the default).")
        add(
            "--method",
            choices=("rtn", "awq", "gptq", "best"),
            default="best",
            help="rtn rounds, awq and gptq are those algorithms, best is the most accurate of them (default: best).",
        )
        add("--max-memory", "--memory", type=_check_size, default="6GiB", help="What the run may use (default: 6GiB).")
        add("--force", action="store_true", help="Replace an artifact that was made from something else.")
        add("--restart", action="store_true", help="Start over instead of resuming interrupted work.")
        add("--debug", action="store_true", help="Show the traceback of an error.")

    def run(self) -> None:
        """Exits with the code of edgepress: 0, or 2 after one sentence that says what is wrong."""
        from edgepress.cli.main import main

        with TemporaryDirectory() as folder:
            recipe = Path(folder) / "awq.yaml"
            recipe.write_text(json.dumps(build_recipe(self.args), ensure_ascii=False), "utf-8")  # JSON is YAML
            main(build_arguments(self.args, recipe), prog_name="optimum-cli export awq")


def _require_name(text: str) -> str:
    """An empty model would mean the recipe's, and an empty output the current folder."""
    if not text:
        raise ArgumentTypeError("it must not be empty.")
    return text


def _parse_positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"{text!r} is not a number above 0.")
    return int(text)


def _check_size(text: str) -> str:
    """Checks a size as `edgepress quantize` does, so that the message names this command."""
    from click import BadParameter

    from edgepress.cli.parameter_types import ByteSize

    try:
        ByteSize().convert(text, None, None)
    except BadParameter as error:
        raise ArgumentTypeError(error.message) from error
    return text


REGISTER_COMMANDS = [(AwqExport, ExportCommand)]
