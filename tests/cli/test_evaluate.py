"""`edgepress evaluate`: exit codes, what is printed and written, and what it says of wrong input."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from edgepress.cli.evaluate import evaluate
from edgepress.cli.main import main
from edgepress.common.errors import UserError
from edgepress.evaluate.results.results_file import load_results
from edgepress.prompts.prompt import Prompt, save_prompts


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(evaluate, [str(argument) for argument in arguments])


def write_images(folder: str, shift: int, names: Iterable[str] = "abcdefghij", size: int = 16) -> Path:
    """An image of noise for each name, its values shifted by `shift`."""
    Path(folder).mkdir()
    for number, name in enumerate(names):
        noise = np.random.default_rng(number).integers(20, 230, (size, size, 3))
        Image.fromarray((noise + shift).astype(np.uint8)).save(Path(folder) / f"{name}.png")
    return Path(folder)


def test_two_folders_are_compared_and_shown(
    reference: Path, candidate: Path, prompts: tuple[Prompt, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page is the same when it is written again from another folder, from results that were moved."""
    save_prompts(list(prompts), tmp_path / "set.jsonl")
    Path("quick.yaml").write_text("device: orin\nevaluation: {steps: 1}\n")
    result = run("--recipe", "quick.yaml", "--model", reference, "--candidate", f"int4={candidate}",
                 "--prompts", "set.jsonl", "--limit", 2, "--output", "out")  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "PSNR" in result.stdout
    assert "text accuracy" in result.stdout
    assert "Written to out" in result.stdout
    assert len(load_results(tmp_path / "out" / "results.json").samples) == 2
    names = {"results.json", "report.html", "report.md", "junit.xml", "SHA256SUMS"}
    assert {file.name for file in (tmp_path / "out").iterdir() if file.is_file()} == names
    (folder,) = [path for path in (tmp_path / "out").iterdir() if path.is_dir()]
    assert folder.name.startswith("2-prompts-of-set-64x64-1-step-")
    assert {file.name for file in folder.iterdir()} == names
    assert (tmp_path / "artifacts" / ".work" / "images").is_dir()
    page = Path("out", "report.html").read_bytes()
    assert page.count(b"data:image/webp") >= 2 * 2
    (tmp_path / "moved").mkdir()
    Path("out", "results.json").rename(tmp_path / "moved" / "results.json")
    monkeypatch.chdir(tmp_path / "artifacts")
    assert run("report", tmp_path / "moved" / "results.json").exit_code == 0
    assert (tmp_path / "moved" / "report.html").read_bytes() == page


# ---------------------------------------------------------------- folders of images, and gates


@pytest.mark.slow
@pytest.mark.parametrize(
    ("gates", "code", "verdict"),
    [
        ("{}", 0, None),
        ("{psnr_min: 30}", 0, "passed"),
        ("{psnr_min: 40}", 1, "failed"),
        ("{text_accuracy_drop: 2}", 2, "not measured"),
        ("{psnr_drop: 2}", 2, "not measured"),
    ],
)
def test_the_exit_code_is_the_verdict(gates: str, code: int, verdict: str | None) -> None:
    """A shift of 5 is 34 dB. There are no prompts with text, and no ground truth."""
    Path("limits.yaml").write_text(f"device: board\nevaluation: {{gates: {gates}}}\n")
    write_images("one", 0)
    write_images("other", 5)
    result = run("--recipe", "limits.yaml", "--pairs", "one", "other")
    assert result.exit_code == code, result.output
    assert load_results(Path("evaluation/results.json")).verdict == verdict
    assert ("was not measured" in result.stderr) == (code == 2)


def test_gates_without_any_in_the_recipe_are_refused() -> None:
    write_images("one", 0)
    write_images("other", 5)
    for recipe, reason in (((), "only a recipe has any"), (("--recipe", "empty.yaml"), "the recipe has none")):
        Path("empty.yaml").write_text("device: board\n")
        error = run(*recipe, "--pairs", "one", "other", "--gates").exception
        assert str(error) == f"--gates has no effect: {reason}. Leave it out."


@pytest.mark.slow
@pytest.mark.parametrize(("strict", "code"), [("false", 0), ("true", 1)])
def test_an_inconclusive_gate_fails_only_where_the_recipe_is_strict(strict: str, code: int) -> None:
    write_images("one", 0)
    variant = write_images("other", 5)
    for file in list(variant.iterdir())[:4]:
        Image.fromarray(np.asarray(Image.open(file)) + np.uint8(10)).save(file)
    Path("limits.yaml").write_text(f"device: board\nevaluation: {{gates: {{psnr_min: 30}}, strict: {strict}}}\n")
    result = run("--recipe", "limits.yaml", "--pairs", "one", "other")
    assert result.exit_code == code, result.output
    assert "verdict: inconclusive" in result.stdout


@pytest.mark.slow
def test_gates_may_be_left_out() -> None:
    Path("limits.yaml").write_text("device: board\nevaluation: {gates: {psnr_min: 99}}\n")
    write_images("one", 0)
    write_images("other", 5)
    assert run("--recipe", "limits.yaml", "--pairs", "one", "other", "--no-gates").exit_code == 0


@pytest.mark.slow
def test_a_baseline_and_a_history_are_shown() -> None:
    write_images("one", 0)
    variant = write_images("other", 5)
    run("--pairs", "one", "other", "--history", "history.sqlite", "--output", "first")
    for file in variant.iterdir():
        Image.fromarray(np.asarray(Image.open(file)) - np.uint8(3)).save(file)
    result = run("--pairs", "one", "other", "--history", "history.sqlite", "--baseline", "first/results.json")
    assert result.exit_code == 0, result.output
    assert "baseline" in result.stdout
    results = load_results(Path("evaluation/results.json"))
    assert results.baseline
    gained = next(change for change in results.baseline.changes if change.score == "psnr")
    assert gained.change.mean == pytest.approx(20 * np.log10(5 / 2))
    assert results.history
    assert len([point for point in results.history if point.score == "psnr"]) == 2


@pytest.mark.slow
def test_a_report_is_written_again_from_the_results(tmp_path: Path) -> None:
    write_images("one", 0)
    write_images("other", 5)
    shown = run("--pairs", "one", "other", "--output", "out").stdout
    files = {name: (tmp_path / "out" / name).read_bytes() for name in ("report.html", "report.md", "junit.xml")}
    for name in files:
        (tmp_path / "out" / name).unlink()
    again = run("report", "out/results.json")
    assert again.exit_code == 0, again.output
    assert shown.startswith(again.stdout)
    assert {name: (tmp_path / "out" / name).read_bytes() for name in files} == files
    assert run("report", "out/results.json", "--output", "elsewhere").exit_code == 0
    assert (tmp_path / "elsewhere" / "report.html").exists()
    assert run("report", "out/results.json", "--output", "elsewhere").exit_code == 0  # over its own reports
    (tmp_path / "elsewhere" / "report.md").write_text("# Quarterly report")
    refused = run("report", "out/results.json", "--output", "elsewhere")
    assert isinstance(refused.exception, UserError)
    assert "elsewhere/report.md was not made by edgepress" in str(refused.exception)
    assert (tmp_path / "elsewhere" / "report.md").read_text() == "# Quarterly report"


@pytest.mark.slow
def test_black_against_black_is_no_pass() -> None:
    """The pair is equal, and worth nothing."""
    for folder in (write_images("one", 0), write_images("other", 5)):
        Image.new("RGB", (16, 16)).save(folder / "c.png")
    Path("limits.yaml").write_text("device: board\nevaluation: {gates: {psnr_min: 30}}\n")
    result = run("--recipe", "limits.yaml", "--pairs", "one", "other")
    assert result.exit_code == 2, result.output
    assert "could not be compared. The first one: c, seed 0: reference black" in result.stderr
    results = load_results(Path("evaluation/results.json"))
    assert (results.verdict, results.variants["other"].num_pairs) == ("not measured", 9)
    (error,) = (
        ElementTree.parse("evaluation/junit.xml").getroot().findall(".//testcase[@name='other: c, seed 0']/error")
    )
    assert error.get("message") == "reference black"
    again = run("report", "evaluation/results.json")
    assert again.exit_code == 0
    assert "Warning: 1 pair of other could not be compared." in again.stderr
    assert "Error:" not in again.stderr


@pytest.mark.slow
def test_few_images_are_inconclusive_whatever_they_score() -> None:
    write_images("one", 0, "ab")
    write_images("other", 1, "ab")
    Path("limits.yaml").write_text("device: board\nevaluation: {gates: {psnr_min: 30}}\n")
    result = run("--recipe", "limits.yaml", "--pairs", "one", "other")
    assert result.exit_code == 0, result.output
    assert load_results(Path("evaluation/results.json")).verdict == "inconclusive"
    assert "verdict: inconclusive" in result.stdout


@pytest.mark.slow
def test_folders_of_images_are_compared_whole_and_a_limit_is_said() -> None:
    """More than a recipe's 64 prompts."""
    names = [f"p{number}" for number in range(70)]
    save_prompts([Prompt(id=name, prompt="x", language="en") for name in names], Path("set.jsonl"))
    for folder, shift in (("one", 0), ("other", 5)):
        write_images(folder, shift, names)
    arguments = ("--model", "one", "--candidate", "other", "--prompts", "set.jsonl", "--metric", "psnr")
    assert run(*arguments, "--output", "out").exit_code == 0
    whole = load_results(Path("out/results.json"))
    assert (len(whole.samples), whole.prompt_subset) == (70, None)
    result = run(*arguments, "--output", "out", "--limit", 64)
    assert "64 samples: 64 of 70 prompts (--limit)" in result.stdout
    limited = load_results(Path("out/results.json"))
    assert limited.prompt_subset
    assert (len(limited.samples), limited.prompt_subset.total, limited.prompt_subset.limited_by) == (64, 70, "--limit")
    assert "64 of 70 prompts (--limit)" in Path("out/report.md").read_text()
    assert "64 of 70 prompts (--limit)" in Path("out/report.html").read_text()
    write_images("extra", 0, [*names, "stranger"])
    refused = run("--model", "one", "--candidate", "extra", "--prompts", "set.jsonl", "--output", "out")
    assert "1 images in extra match no prompt in set.jsonl: stranger" in str(refused.exception)


@pytest.mark.slow
@pytest.mark.parametrize(
    "second",
    [
        ("--pairs", "one", "other", "--ground-truth", "nowhere"),
        ("--pairs", "one", "other", "--ground-truth", "incomplete"),
        ("--recipe", "toaster"),
        ("--recipe", "wrong.yaml", "--pairs", "one", "other"),
        ("--pairs", "one", "other", "--baseline", "nowhere"),
        ("--pairs", "one", "other", "--baseline", "other.json"),
        ("--pairs", "one", "other", "--metric", "psnrr"),
        ("--pairs", "one", "other", "--history", "one/a.png"),
        ("--model", "one", "--candidate", "other", "--prompts", "empty.txt"),
    ],
)
def test_what_is_refused_touches_no_earlier_result(second: tuple[str, ...]) -> None:
    write_images("one", 0)
    write_images("other", 5)
    write_images("incomplete", 5, "ab")
    Path("wrong.yaml").write_text("device: board\nevaluation: {gates: {psnr_mx: 30}}\n")
    Path("empty.txt").touch()
    assert run("--pairs", "one", "incomplete", "--output", "incomplete-out").exit_code == 2
    Path("incomplete-out/results.json").rename("other.json")
    assert run("--pairs", "one", "other", "--output", "out").exit_code == 0
    before = {file: file.stat().st_mtime_ns for file in Path("out").rglob("*")}
    refused = run(*second, "--output", "out")
    assert isinstance(refused.exception, UserError)
    assert {file: file.stat().st_mtime_ns for file in Path("out").rglob("*")} == before


@pytest.mark.slow
def test_a_quick_look_leaves_the_whole_run_alone() -> None:
    """Then both are compared, and the whole run is the latest again."""
    for folder, shift in (("one", 0), ("other", 5)):
        write_images(folder, shift)
    save_prompts([Prompt(id=name, prompt="x", language="en") for name in "abcdefghij"], Path("set.jsonl"))
    arguments = (
        "--model",
        "one",
        "--candidate",
        "other",
        "--prompts",
        "set.jsonl",
        "--metric",
        "psnr",
        "--output",
        "out",
    )
    whole = run(*arguments)
    (folder,) = [path for path in Path("out").iterdir() if path.is_dir()]
    assert folder.name.startswith("10-prompts-of-set-")
    assert f"Runs of other plans leave {folder} alone." in whole.stdout
    files = {file: file.read_bytes() for file in folder.iterdir()}
    assert run(*arguments, "--limit", 1).exit_code == 0
    assert len(load_results(Path("out/results.json")).samples) == 1
    assert {file: file.read_bytes() for file in folder.iterdir()} == files
    (quick,) = Path("out").glob("1-prompt-of-set-*")
    assert len(load_results(quick / "results.json").samples) == 1
    compared = run("report", folder / "results.json", "--output", "again")
    assert compared.exit_code == 0
    assert run(*arguments, "--baseline", folder / "results.json").exit_code == 0
    assert len(load_results(Path("out/results.json")).samples) == 10
    assert sorted(path.name for path in Path("out").iterdir() if path.is_dir()) == sorted([folder.name, quick.name])


def test_a_folder_that_cannot_be_written_to_is_found_before_any_work() -> None:
    for folder, shift in (("one", 0), ("other", 5)):
        write_images(folder, shift)
    Path("file").touch()
    refused = run("--pairs", "one", "other", "--output", "file/out")
    assert "file is not a folder, so file/out cannot be created" in str(refused.exception)
    refused = run("--pairs", "one", "other", "--history", "file/history.sqlite")
    assert "file is not a folder, so file cannot be created" in str(refused.exception)
    assert not Path("artifacts").exists()


@pytest.mark.slow
def test_the_current_folder_need_not_be_writable() -> None:
    """Images and scores are then cached next to the results. A file stands where the folder would be."""
    for folder, shift in (("one", 0), ("other", 5)):
        write_images(folder, shift)
    Path("artifacts").touch()
    assert run("--pairs", "one", "other", "--output", "out").exit_code == 0
    assert Path("out/.work/scores.sqlite").exists()


@pytest.mark.slow
def test_a_baseline_may_be_what_is_replaced() -> None:
    write_images("one", 0)
    write_images("other", 5)
    for _ in range(2):
        result = run("--pairs", "one", "other", "--output", "out", *(
            ("--baseline", "out/results.json") if Path("out").exists() else ()
        ))  # fmt: skip
        assert result.exit_code == 0, result.output
    assert load_results(Path("out/results.json")).baseline


# ---------------------------------------------------------------- wrong input


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "Nothing to compare. Give --recipe"),
        (["--model", "x"], "Nothing to compare"),
        (["--candidate", "x"], "Nothing to compare"),
        (["--model", "nowhere", "--candidate", "one"], "nowhere"),
        (["--recipe", "toaster"], "There is no recipe 'toaster'"),
        (["--model", "one", "--candidate", "nowhere"], "nowhere does not exist. Run 'edgepress quantize' first"),
        (["--pairs", "one", "nowhere"], "nowhere does not exist. Give --pairs two folders"),
        (["--pairs", "one", "one", "--seeds", "2"], "Leave out --model, --candidate and --seeds"),
        (["--pairs", "one", "one", "--metric", "psnrr"], "'psnrr': did you mean 'psnr'"),
        (["--pairs", "one", "one", "--ground-truth", "nowhere"], "nowhere does not exist. Give --ground-truth"),
        (["--pairs", "one", "one", "--baseline", "nowhere"], "Cannot read nowhere"),
        (["--pairs", "one", "one", "--history", "text"], "text is not a valid evaluation history"),
        (
            ["--pairs", "one", "one", "-o", "new", "--history", "other/../new/results.json"],
            "new/results.json is a file that this evaluation writes. Pass another to --history",
        ),
        (
            ["--pairs", "one", "one", "-o", "new", "--history", "new/plan/report.html"],
            "new/plan/report.html is a file that this evaluation writes. Pass another to --history",
        ),
        (["--recipe", "wrong.yaml", "--pairs", "one", "one"], "Unknown gate 'psnr_mx': did you mean 'psnr_min'"),
        (
            ["--recipe", "limits.yaml", "--pairs", "one", "one", "--metric", "ssim"],
            "Only these metrics are measured: ssim. Use --no-gates",
        ),
        (["--recipe", "broken.yaml", "--pairs", "one", "one"], "write a number such as 2"),
        (["--recipe", "endless.yaml", "--pairs", "one", "one"], "write a number such as 2"),
        (["--pairs", "one", "one", "--prompts", "none.jsonl"], "none.jsonl"),
        (["report", "text"], "text is not a results file"),
        (["report", "old.json"], "has schema version 1"),
    ],
)
def test_wrong_input_is_explained(arguments: list[str], sentence: str) -> None:
    write_images("one", 0, "a")
    Path("text").write_text("a text of some length " * 40)
    Path("old.json").write_text(json.dumps({"schema_version": 1, "summary": {}}))
    Path("wrong.yaml").write_text("device: board\nevaluation: {gates: {psnr_mx: 30}}\n")
    Path("limits.yaml").write_text("device: board\nevaluation: {gates: {psnr_min: 30}}\n")
    Path("broken.yaml").write_text("device: board\nevaluation: {gates: {psnr_min: high}}\n")
    Path("endless.yaml").write_text("device: board\nevaluation: {gates: {psnr_min: .inf}}\n")
    result = CliRunner().invoke(main, ["evaluate", *arguments])
    assert result.exit_code == 2
    assert isinstance(result.exception, SystemExit)
    message = result.stderr.strip()
    assert message.startswith("Error: ")
    assert "\n" not in message
    assert sentence in message


@pytest.mark.slow
def test_images_that_are_too_small_for_a_metric_have_a_reason_in_their_row() -> None:
    for folder, shift in (("one", 0), ("other", 5)):
        write_images(folder, shift, "ab")
        write_images(f"small {folder}", shift, "a", size=10).joinpath("a.png").replace(Path(folder) / "a.png")
    result = run("--pairs", "one", "other", "--metric", "ssim", "--metric", "mae", "--output", "out")
    assert result.exit_code == 0
    assert "no SSIM: an image of 10x10 pixels is smaller than the 11x11 window of SSIM" in result.output
    small, large = (sample.variants["other"].values for sample in load_results("out/results.json").samples)
    assert (small["ssim"], small["mae"]) == (None, 5)
    assert large["ssim"] is not None


def test_no_prompts_are_refused() -> None:
    assert run("--recipe", "orin", "--limit", 0).exit_code == 2
    assert run("--recipe", "orin", "--seeds", 0).exit_code == 2


def test_user_errors_are_left_to_the_root_group() -> None:
    assert isinstance(run("--recipe", "toaster").exception, UserError)


@pytest.mark.slow
def test_help_is_fast() -> None:
    heavy = "{'torch', 'diffusers', 'transformers', 'rapidocr', 'skimage', 'numpy', 'rich'}"
    code = f"import sys, edgepress.cli.evaluate; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
