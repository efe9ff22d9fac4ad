from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from helpers.candidate_results import Candidate, make_candidate_results, spread
from PIL import Image

from edgepress.cli.main import main
from edgepress.evaluate.results.results_file import save_results


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, psnr in (("a", 30), ("b", 40)):
        save_results(
            make_candidate_results({name: Candidate(spread(psnr), psnr * 10**6)}), tmp_path / name / "results.json"
        )
    return tmp_path


def test_finished_results_are_compared(folder: Path) -> None:
    result = CliRunner().invoke(main, ["compare", str(folder / "a" / "results.json"), str(folder / "b")])
    assert result.exit_code == 0, result.output
    assert "Closest to the reference is b" in result.output
    assert (folder / "a" / "compare.html").exists()
    output = folder / "out"
    arguments = ["compare", str(folder / "a"), str(folder / "b"), "--json", "-o", str(output)]
    result = CliRunner().invoke(main, arguments)
    assert [entry["name"] for entry in json.loads(result.stdout)["candidates"]] == ["b", "a"]
    assert json.loads((output / "compare.json").read_text("utf-8")) == json.loads(result.stdout)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a", "--limit", "2"], "holds results, which are only read. Leave out --limit."),
        (["a", "images"], "holds results, but not all candidates do"),
        (["nowhere.json"], "Cannot read nowhere.json"),
        (["images"], "Nothing to compare with. Give --model, the pipeline that was quantized, or --recipe."),
        ([], "RESULTS.json... is missing. Give it"),
    ],
)
def test_what_cannot_be_compared_is_named(
    arguments: list[str], message: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    (folder / "images").mkdir()
    Image.new("RGB", (8, 8)).save(folder / "images" / "p0.png")
    result = CliRunner().invoke(main, ["compare", *arguments])
    assert result.exit_code == 2
    assert message in result.output
    assert not list(folder.rglob("compare.*"))


@pytest.mark.slow
def test_candidates_are_evaluated_first(reference: Path, candidate: Path, tmp_path: Path) -> None:
    prompts = tmp_path / "set.jsonl"
    prompts.write_text('{"id": "a", "prompt": "a sign", "language": "en"}\n')
    arguments = ["compare", f"copy={reference}", f"coarse={candidate}", "--model", str(reference), "--metric", "psnr"]
    result = CliRunner().invoke(main, [*arguments, "--prompts", str(prompts), "-o", str(tmp_path / "out"), "-q"])
    assert result.exit_code == 0, result.output
    assert "All images of copy equal the reference's in every pixel." in result.output
    assert {"results.json", "report.html", "compare.html", "compare.json"} <= {
        file.name for file in (tmp_path / "out").iterdir()
    }
