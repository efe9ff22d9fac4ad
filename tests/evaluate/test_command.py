from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from edgepress.errors import UserError
from edgepress.evaluate.command import evaluate
from edgepress.evaluate.results import load_results
from edgepress.prompts import Prompt, save_prompts


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(evaluate, [str(argument) for argument in arguments])


def test_two_folders_are_compared_and_shown(
    reference: Path, candidate: Path, prompts: tuple[Prompt, ...], tmp_path: Path
) -> None:
    save_prompts(list(prompts), tmp_path / "set.jsonl")
    Path("quick.yaml").write_text("device: orin\nevaluation: {steps: 1}\n")
    result = run("--recipe", "quick.yaml", "--reference", reference, "--candidate", candidate,
                 "--prompts", "set.jsonl", "--limit", 2, "--output", "out")  # fmt: skip
    assert result.exception is None
    assert "PSNR" in result.stdout
    assert "text accuracy" in result.stdout
    assert "written to out/results.json" in result.stdout
    assert len(load_results(tmp_path / "out" / "results.json").rows) == 2
    assert (tmp_path / "artifacts" / ".work" / "pictures").is_dir()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "Say what to compare"),
        (["--reference", "x"], "Say what to compare"),
        (["--candidate", "x"], "Say what to compare"),
        (["--recipe", "orin", "--model", "x", "--reference", "y"], "give one of them"),
        (["--reference", "nowhere", "--candidate", "x"], "no model folder nowhere"),
        (["--recipe", "toaster"], "no recipe for the device 'toaster'"),
    ],
)
def test_wrong_input_is_explained(arguments: list[str], sentence: str) -> None:
    error = run(*arguments).exception
    assert isinstance(error, UserError)
    assert sentence in str(error)


def test_no_prompts_are_refused() -> None:
    assert run("--recipe", "orin", "--limit", 0).exit_code == 2
    assert run("--recipe", "orin", "--seeds", 0).exit_code == 2


def test_help_is_fast() -> None:
    heavy = "{'torch', 'diffusers', 'transformers', 'rapidocr', 'skimage', 'numpy', 'rich'}"
    code = f"import sys, edgepress.evaluate.command; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
