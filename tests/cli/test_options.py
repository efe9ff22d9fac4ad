"""Options that several commands share: sizes, old names, verbosity, completion."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from edgepress.cli.main import main
from edgepress.cli.parameter_types import ByteSize, ImageSize, RecipeName, Seconds
from edgepress.recipes.loader import recipe_names

VERBS = {
    ("quantize",): {"--model", "--output", "--force", "--restart", "--quiet", "--verbose", "--json"},
    ("export", "onnx"): {"--model", "--output", "--quiet", "--verbose", "--json"},
    ("export", "rknn"): {"--model", "--output", "--quiet", "--verbose", "--json"},
    ("evaluate",): {"--model", "--output", "--restart", "--quiet", "--verbose", "--json"},
    ("generate",): {"--output", "--quiet", "--verbose", "--json"},
    ("bench",): {"--output", "--quiet", "--verbose", "--json"},
    ("info",): {"--json"},
    ("recipes",): {"--json"},
    ("recipes", "show"): {"--json"},
}
RENAMED = {
    ("quantize", "--recipe", "absent", "--memory", "2GiB"): ("--memory", "--max-memory"),
    ("quantize", "--recipe", "absent", "--memory=2GiB"): ("--memory", "--max-memory"),
    ("export", "onnx", "--recipe", "absent", "--flavour", "qdq"): ("--flavour", "--format"),
    ("export", "onnx", "--recipe", "absent", "--with", "vae_encoder"): ("--with", "--extra-graph"),
    ("evaluate", "--recipe", "absent", "--reference", "demo"): ("--reference", "--model"),
    ("evaluate", "--recipe", "absent", "--truth", "images"): ("--truth", "--ground-truth"),
    ("evaluate", "--recipe", "absent", "--no-resume"): ("--no-resume", "--restart"),
    ("bench", "absent", "--one-graph", "--quiet"): ("--one-graph", "--low-memory"),
    ("wheelhouse", "--machine", "aarch64", "--output", __file__): ("--machine", "--platform"),
}


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_verbs_use_the_same_words(verb: tuple[str, ...]) -> None:
    shown = CliRunner().invoke(main, [*verb, "--help"]).stdout
    assert {option for option in VERBS[verb] if option not in shown} == set()


@pytest.mark.parametrize(
    "arguments", [["bench"], ["verify"], ["generate", "--prompt", "x"], ["evaluate", "--pairs", "a"]], ids=" ".join
)
def test_paths_that_are_not_utf8_are_refused(arguments: list[str]) -> None:
    result = CliRunner().invoke(main, [*arguments, os.fsdecode(b"D\xe9")])
    assert result.exit_code == 2
    assert (
        "The argument 'D\\xe9' is not UTF-8. Rename the file or folder, or check the encoding of the terminal."
        in result.stderr
    )


@pytest.mark.parametrize(
    ("arguments", "where"),
    [
        (["quantize", "--recipe", ""], "after --recipe"),
        (["quantize", "--recipe", "orin", "--model="], "after --model"),
        (["quantize", "--recipe", "orin", "-o", ""], "after -o"),
        (["export", "onnx", "--recipe", "orin", "--precision", ""], "after --precision"),
        (["generate", "absent", "--prompt", "x", "-o", "a.png", "--provider", ""], "after --provider"),
        (["generate", ""], "at first"),
        (["evaluate", "--pairs", "a", ""], "after a"),
        (["evaluate", "report", ""], "after report"),
        (["bench", "absent", "--prompts="], "after --prompts"),
        (["recipes", "show", ""], "after show"),
        (["verify", ""], "at first"),
        (["info", "--json", ""], "after --json"),
        (["clean", ""], "at first"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_arguments_without_a_character_are_refused(arguments: list[str], where: str) -> None:
    """A path would be the current folder."""
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert f"The argument {where} is empty. Give a value, or leave it out." in result.stderr


@pytest.mark.parametrize("prompt", [["--prompt", ""], ["--prompt="]])
def test_a_prompt_may_be_empty(prompt: list[str], tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["generate", str(tmp_path), *prompt, "-o", str(tmp_path / "a.png")])
    assert "is an empty folder" in result.stderr


@pytest.mark.parametrize("arguments", RENAMED, ids=" ".join)
def test_old_names_are_read_with_a_warning(arguments: tuple[str, ...]) -> None:
    old, new = RENAMED[arguments]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2  # there is no such recipe or artifact
    warning, error = result.stderr.splitlines()
    assert warning.startswith(f"Warning: {old} is deprecated")
    assert f"Use {new} instead." in warning
    assert error.startswith("Error: ")
    assert (
        old
        not in CliRunner().invoke(main, [*arguments[: 2 if arguments[0] == "export" else 1], "--help"]).stdout.split()
    )


def test_a_flag_without_effect_is_said() -> None:
    result = CliRunner().invoke(main, ["evaluate", "--recipe", "absent", "--resume"])
    assert "Warning: --resume has no effect any more" in result.stderr


def test_json_is_all_that_is_printed(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["recipes", "--json"])
    assert [row["name"] for row in json.loads(result.stdout)] == recipe_names()
    shown = CliRunner().invoke(main, ["recipes", "show", "pi5", "--json"])
    assert json.loads(shown.stdout)["device"] == "pi5"
    folder = tmp_path / "pipeline"
    folder.mkdir()
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "SomePipeline"}))
    info = json.loads(CliRunner().invoke(main, ["info", str(folder), "--json"]).stdout)
    assert (info["kind"], info["pipeline_class"], info["supported"]) == ("pipeline", "SomePipeline", [])


def test_shells_complete_recipes() -> None:
    command = main.commands["quantize"]
    completions = RecipeName().shell_complete(click.Context(command), command.params[0], "pi5")
    assert [item.value for item in completions if item.type == "plain"] == ["pi5"]


def test_verbosity_ends_with_the_command() -> None:
    level = logging.getLogger("edgepress").level
    CliRunner().invoke(main, ["recipes", "--verbose"])
    assert logging.getLogger("edgepress").level == level


# ---------------------------------------------------------------- sizes


@pytest.mark.parametrize("written", ["512x768", "512X768", "512×768"])
def test_a_size_is_height_and_width(written: str) -> None:
    assert ImageSize().convert(written, None, None) == (512, 768)


BAD = ["", "512", "x512", "512x", "512 x 512", "-16x16", "512x512x3", "1.5x2", "axb", "1x" + 22 * "9"]


@pytest.mark.parametrize("written", BAD)
def test_what_is_not_a_size_is_answered_with_an_example(written: str) -> None:
    with pytest.raises(click.BadParameter, match=r"is not a size\. Write height and width like 512x768"):
        ImageSize().convert(written, None, None)


@pytest.mark.parametrize(("written", "size"), [("6GiB", 6 * 2**30), ("500MB", 500_000_000), ("1.5KiB", 1536)])
def test_bytes_have_a_unit(written: str, size: int) -> None:
    assert ByteSize().convert(written, None, None) == size


@pytest.mark.parametrize("written", ["nan", "inf", "-inf", "0", "-1", "1e9", "soon", ""])
def test_a_duration_is_finite_and_positive(written: str) -> None:
    with pytest.raises(click.BadParameter):
        Seconds().convert(written, None, None)


def test_durations() -> None:
    assert [Seconds().convert(written, None, None) for written in ("3600", "0.5")] == [3600.0, 0.5]
