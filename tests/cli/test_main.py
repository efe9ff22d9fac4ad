"""The command line: help, one sentence for what a user can fix, and a traceback on request."""

from __future__ import annotations

import errno
import json
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from helpers.failing_command import failing
from rich.console import Console
from rich.table import Table

import edgepress
from edgepress.cli.main import RootGroup, main
from edgepress.common.errors import UserError


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def error_message(result: Result) -> str:
    """The message of a user error: one line on stderr, exit code 2, and nothing else."""
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit)
    assert result.stdout == ""
    message = result.stderr.strip()
    assert message.startswith("Error: ")
    assert "\n" not in message
    return message


def pipeline(folder: Path, class_name: str) -> Path:
    folder.mkdir()
    (folder / "model_index.json").write_text(json.dumps({"_class_name": class_name}))
    return folder


# ---------------------------------------------------------------- help


def test_help_names_every_verb() -> None:
    result = run("--help")
    assert result.exit_code == 0
    assert [
        verb
        for verb in (
            "quantize",
            "export",
            "evaluate",
            "generate",
            "bench",
            "recipes",
            "info",
            "verify",
            "--debug",
            "--version",
        )
        if verb not in result.stdout
    ] == []


@pytest.mark.parametrize("verb", ["quantize", "evaluate"])
def test_help_of_a_verb_names_its_options(verb: str) -> None:
    result = run(verb, "--help")
    assert result.exit_code == 0
    assert [option for option in ("--recipe", "--model", "--output") if option not in result.stdout] == []


def test_version() -> None:
    result = run("--version")
    assert result.exit_code == 0
    lines = dict(line.split(" ", 1) for line in result.stdout.splitlines())
    assert lines["edgepress"] == edgepress.__version__
    assert lines["torch"] == metadata.version("torch")
    assert f"ONNX Runtime {metadata.version('onnxruntime')}" in result.stdout
    assert "rknn-toolkit2" in lines


@pytest.mark.slow
def test_a_reader_that_leaves_is_not_an_error_message() -> None:
    command = f"{sys.executable} -m edgepress recipes show pi5 | head -1"
    result = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert "Error" not in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("arguments", ["['--help']", "['quantize', '--help']", "['quantize', '--recipe', 'absent']"])
def test_help_and_early_refusals_come_without_torch(arguments: str) -> None:
    script = (
        "import sys; from edgepress.cli.main import main; main(" + arguments + ", standalone_mode=False);"
        "sys.exit(9 if {'torch', 'diffusers', 'transformers', 'numpy'} & set(sys.modules) else 0)"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, check=False).returncode == 0


@pytest.mark.slow
def test_a_command_imports_nothing_that_others_need() -> None:
    """It made the start of all commands half as long again."""
    script = (
        "import sys; from edgepress.cli.main import main; main(['recipes', 'show', 'orin'], standalone_mode=False);"
        "print(*{'numpy', 'sqlite3', 'edgepress.api.inspection', 'edgepress.api.cleaning',"
        "'edgepress.api.verification', 'edgepress.storage.pipeline_config'} & set(sys.modules), file=sys.stderr)"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stderr == "\n"


@pytest.mark.parametrize(
    "arguments", [("squeeze",), ("quantize",), ("quantize", "--recipe", "orin", "--method", "magic")]
)
def test_wrong_usage_is_exit_code_2(arguments: tuple[str, ...]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert "Usage:" in result.stderr


# ---------------------------------------------------------------- user errors


def test_an_unknown_recipe_is_answered_with_the_known_ones() -> None:
    message = error_message(run("quantize", "--recipe", "orrin"))
    assert "'orrin'" in message
    assert re.search(r"shipped recipe: .*\borin, ", message)


def test_a_typo_in_a_recipe_is_answered_with_the_key_that_was_meant(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("device: mine\nquantize: {scheme: {group_sise: 64}}\n")
    message = error_message(run("quantize", "--recipe", "mine.yaml"))
    assert "mine.yaml" in message
    assert "did you mean 'group_size'?" in message


def test_a_missing_model_folder_is_named() -> None:
    message = error_message(run("quantize", "--recipe", "orin", "--model", "./nowhere"))
    assert "There is no model folder ./nowhere" in message


def test_a_pipeline_class_that_diffusers_lacks_is_named(tmp_path: Path) -> None:
    folder = pipeline(tmp_path / "unknown", "NoSuchPipeline")
    message = error_message(run("quantize", "--recipe", "orin", "--model", folder, "--output", tmp_path / "out"))
    assert "names the pipeline class 'NoSuchPipeline', which diffusers " in message
    assert not (tmp_path / "out").exists()


def test_a_pipeline_without_its_components_is_refused_before_any_work(tmp_path: Path) -> None:
    folder = pipeline(tmp_path / "bare", "ZImagePipeline")
    message = error_message(run("quantize", "--recipe", "orin", "--model", folder, "--output", tmp_path / "out"))
    assert "does not list the component 'text_encoder'" in message
    assert not (tmp_path / "out").exists()


def test_torch_leaves_no_empty_folder_of_a_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its compiler calls `cache_dir` as soon as it is imported; new processes would take longer than this test."""
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "restored at the end")
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert run("recipes").exit_code == 0
    assert Path(cache_dir()) == tmp_path
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- tracebacks


def test_debug_gives_the_exception_itself() -> None:
    result = run("--debug", "quantize", "--recipe", "orrin")
    assert isinstance(result.exception, UserError)
    assert result.exit_code == 1


@pytest.mark.slow
def test_the_process_prints_a_sentence_or_with_debug_a_traceback() -> None:
    command = [sys.executable, "-m", "edgepress"]
    plain, debug = (
        subprocess.run([*command, *flags, "quantize", "--recipe", "orrin"], capture_output=True, text=True, check=False)
        for flags in ([], ["--debug"])
    )
    assert plain.returncode == 2
    assert plain.stderr.count("\n") == 1
    assert debug.returncode == 1
    assert debug.stderr.startswith("Traceback")
    assert "UserError: There is no recipe" in debug.stderr


@pytest.mark.parametrize(
    "error", [UserError("wrong"), OSError(errno.ENOSPC, "No space left on device"), ValueError("x")]
)
def test_debug_gives_every_exception(error: Exception) -> None:
    assert CliRunner().invoke(failing(error), ["--debug", "work"]).exception is error


@pytest.mark.parametrize(
    "arguments", [("--help",), ("recipes",), ("recipes", "show", "pi5", "--json"), ("quantize", "--recipe", "花园")]
)
def test_a_stream_that_cannot_express_a_character_gets_an_escape(arguments: tuple[str, ...]) -> None:
    result = CliRunner(charset="ascii").invoke(main, arguments)
    assert result.exit_code == (2 if "quantize" in arguments else 0), result.output


def test_tables_on_an_ascii_stream() -> None:
    """rich writes to the stream by itself. The file's name is not even UTF-8."""

    @click.group(cls=RootGroup)
    @click.option("--debug", is_flag=True)
    def root(debug: bool) -> None:
        pass

    @root.command()
    def show() -> None:
        Console().print(Table("part", title="白墙 ✓ \udcff"))

    result = CliRunner(charset="ascii").invoke(root, ["show"])
    assert result.exit_code == 0, result.output
    assert "\\u767d\\u5899" in result.stdout
