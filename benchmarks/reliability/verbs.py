"""The commands that `make faults` lets fail, on a tiny pipeline: each does all that it does with a large one."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import yaml

from ...common.errors import UserError
from ...prompts.prompt import Prompt, save_prompts
from ...runtime.rknn.toolkit import find_interpreter
from ...storage.files import write_json
from ...storage.layout import Artifact
from ...storage.publishing import artifact_lock, publish_folder
from .injection import CHILD, FAULTS

SOURCE = "SOURCE"  # stands for the pipeline in arguments
ARTIFACT = "artifacts/test"
OLDER, NEWER = "older.yaml", "newer.yaml"  # recipes
PROMPTS = ("a cat", "two dogs", "rain")
MAX_TOOLKIT_POINTS = 2  # starting rknn-toolkit2 takes seconds


@dataclass(frozen=True)
class Verb:
    """A command that is disturbed.

    Attributes:
        name: What the table calls it.
        prepare: Arguments of the commands that are run before, such as for an older result.
        arguments: Its own arguments. `SOURCE` is the pipeline; other paths are relative to the folder of the run.
        results: Files and folders of results, each of which must be whole at any time.
        interrupted: Arguments of a command that is killed after `prepare`, so that there is unfinished work.
        faults: The faults that are tried.
        max_points: The most operations that fail in turn for each fault; 0: all.
        needs_toolkit: Whether it starts rknn-toolkit2.
    """

    name: str
    prepare: Sequence[Sequence[str]]
    arguments: Sequence[str]
    results: Sequence[str]
    interrupted: Sequence[str] = ()
    faults: Sequence[str] = FAULTS
    max_points: int = 0
    needs_toolkit: bool = False

    @property
    def traces_graphs(self) -> bool:
        """Whether a cache of traced graphs saves it minutes."""
        return any(tuple(command[:2]) == EXPORT[:2] for command in (*self.prepare, self.arguments))


RECIPES = {
    name: {
        "device": "test",
        "quantize": {"method": "rtn", "components": ["text_encoder"], "scheme": {"group_size": group_size}},
        "calibration": {"count": 1, "steps": 1},
        "evaluation": {"count": 1, "steps": 1, "noise_floor": False},
        "rknn": {"target": "rk3588", "precision": "fp16", "max_prompt_tokens": 32},
    }
    for name, group_size in ((OLDER, 64), (NEWER, 32))
}
OUTPUT = ("--quiet", "--output", ARTIFACT)
QUANTIZE = ("quantize", *OUTPUT, "--model", SOURCE, "--recipe")
EXPORT = ("export", "onnx", *OUTPUT, "--recipe", NEWER, "--precision")
FP32 = (*EXPORT, "fp32", "--no-check")
EXPORT_RKNN = ("export", "rknn", *OUTPUT, "--model", SOURCE, "--component", "text_encoder", "--recipe")
EVALUATE = ("evaluate", "--quiet", "--model", SOURCE, "--candidate", f"{ARTIFACT}/model", "--recipe", NEWER)
GENERATE = ("generate", "--quiet", ARTIFACT, "--steps", "1", "--output", "image.png", "--prompt")
MODEL, ONNX, RKNN, EVALUATION = (f"{ARTIFACT}/{name}" for name in ("model", "onnx", "rknn", "evaluation"))
VERBS: Mapping[str, Verb] = {
    verb.name: verb
    for verb in (
        Verb("publish", [["publish", "older"]], ["publish", "newer"], [ONNX, f"{ARTIFACT}/manifest.json"]),
        Verb("quantize", [], [*QUANTIZE, NEWER], [MODEL]),
        Verb(
            "quantize --force",
            [[*QUANTIZE, OLDER], FP32],
            [*QUANTIZE, NEWER, "--force"],
            [MODEL],
        ),
        Verb(
            "evaluate",
            [[*QUANTIZE, NEWER], [*EVALUATE, "--metric", "mae"]],
            [*EVALUATE, "--metric", "psnr"],
            [MODEL],
        ),
        Verb("export onnx", [[*QUANTIZE, NEWER], FP32], [*EXPORT, "int4"], [MODEL, ONNX]),
        Verb(
            "export rknn",
            [[*EXPORT_RKNN, OLDER]],
            [*EXPORT_RKNN, NEWER],
            [RKNN],
            faults=(*FAULTS, CHILD),
            max_points=MAX_TOOLKIT_POINTS,
            needs_toolkit=True,
        ),
        Verb(
            "generate",
            [[*QUANTIZE, NEWER], FP32, [*GENERATE, "rain"]],
            [*GENERATE, "a cat"],
            [ONNX, "image.png"],
        ),
        Verb(
            "clean",
            [[*QUANTIZE, NEWER], [*EVALUATE, "--metric", "mae"]],
            ["clean", "--quiet"],
            [MODEL, EVALUATION],
            interrupted=[*QUANTIZE, OLDER, "--force"],
        ),
    )
}

# Exports all graphs that the commands above export.
TRACING = Verb(
    "tracing",
    [
        [*QUANTIZE, OLDER],
        FP32,
        [*QUANTIZE, NEWER, "--force"],
        FP32,
    ],
    ["info", "--quiet", ARTIFACT],
    [],
)


@click.command()
@click.argument("content")
def publish(content: str) -> None:
    """Replace a folder and a file of an artifact, as every stage does at its end."""
    artifact = Artifact(Path(ARTIFACT))
    with artifact_lock(artifact.path) as work:
        staged = work / "export-onnx"
        shutil.rmtree(staged, ignore_errors=True)
        for name in ("a", "b/c"):
            (staged / name).parent.mkdir(parents=True, exist_ok=True)
            write_json(content, staged / name)
        publish_folder(staged, artifact.onnx)
        write_json(content, artifact.manifest)


def is_toolkit_installed() -> bool:
    """Whether rknn-toolkit2 is there."""
    try:
        return find_interpreter().exists()
    except UserError:
        return False


def write_source(folder: Path) -> None:
    """Writes the tiny pipeline, with prompts."""
    from ..synthetic.full_size import TINY_SHAPES, write_pipeline  # imports torch, which not every command needs

    write_pipeline(folder, TINY_SHAPES)
    prompts = [Prompt(id=f"p{number}", prompt=text, language="en") for number, text in enumerate(PROMPTS)]
    (folder / "prompts").mkdir(exist_ok=True)
    for name in ("calibration", "evaluation"):
        save_prompts(prompts, folder / "prompts" / f"{name}.jsonl")


def write_recipes(folder: Path) -> None:
    """Writes the recipes that the commands name."""
    for name, recipe in RECIPES.items():
        (folder / name).write_text(yaml.safe_dump(recipe), "utf-8")
