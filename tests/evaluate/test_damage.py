"""Damage that is planted in a folder of images is reported, each piece of it, and none vanishes in a mean."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image, ImageDraw, ImageFont

from edgepress.cli.evaluate import evaluate
from edgepress.evaluate.results.results_file import load_results
from edgepress.evaluate.results.schema import Results
from edgepress.pipelines.hub import DEMO_CLIP
from edgepress.prompts.prompt import Prompt, save_prompts

pytestmark = pytest.mark.slow  # OCR reads 70 images

SIDE, COUNT = 128, 20
WORDS = (
    *("OPEN", "CAFE", "FISH", "MOON", "SALE", "TREE", "WOLF", "GATE", "LAKE", "BIRD"),
    *("ROSE", "SNOW", "KITE", "LIME", "TAXI", "VASE", "PARK", "MENU", "GOLD", "IRIS"),
)
SWAPPED = 7  # one of 20 images is 5 %
BLACK, MISSING, LARGER = 3, 11, 15
RECIPE = "device: board\nevaluation: {gates: {psnr_min: 30, ssim_min: 0.9, text_accuracy_drop: 2}}\n"


def sign(word: str, number: int) -> Image.Image:
    image = Image.new("RGB", (SIDE, SIDE), (235 - number, 225, 200 + number))
    draw = ImageDraw.Draw(image)
    draw.text((SIDE // 2, SIDE // 2), word, (20, 40, 90), ImageFont.load_default(38), anchor="mm")
    return image


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Signs with a word each as the reference, and their prompts."""
    folder = tmp_path_factory.mktemp("damage")
    (folder / "reference").mkdir()
    prompts = []
    for number, word in enumerate(WORDS):
        sign(word, number).save(folder / "reference" / f"{number:02d}.png")
        prompts.append(Prompt(id=f"{number:02d}", prompt=f'a sign: "{word}"', language="en", lines=(word,)))
    save_prompts(prompts, folder / "set.jsonl")
    (folder / "board.yaml").write_text(RECIPE)
    return folder


@pytest.fixture(autouse=True)
def _beside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All tests share one score cache, so that the reference is read once."""
    monkeypatch.chdir(folder)


def variant(folder: Path, name: str) -> Path:
    """The reference's images, brighter by 1 in one corner, so that no pair is identical."""
    images = folder / name
    images.mkdir()
    for file in sorted((folder / "reference").iterdir()):
        pixels = np.array(Image.open(file))
        pixels[:4, :4] += 1
        Image.fromarray(pixels).save(images / file.name)
    return images


def compare(images: Path) -> tuple[Result, Results]:
    arguments = ["--recipe", "board.yaml", "--pairs", "reference", images.name, "--prompts", "set.jsonl"]
    metrics = [word for name in ("psnr", "ssim", "text") for word in ("--metric", name)]
    result = CliRunner().invoke(evaluate, [*arguments, *metrics, "--output", f"out-{images.name}"])
    return result, load_results(Path(f"out-{images.name}") / "results.json")


def gates(results: Results) -> dict[str, str]:
    return {gate.name: gate.verdict for gate in results.gates}


def test_no_damage_passes(folder: Path) -> None:
    result, results = compare(variant(folder, "sound"))
    assert result.exit_code == 0, result.output
    assert set(gates(results).values()) == {"passed"}
    assert "verdict: passed" in result.stdout


def test_a_letter_swapped_in_5_per_cent_of_the_images(folder: Path) -> None:
    """The mean hardly moves; the image is named, and the gate does not pass."""
    images = variant(folder, "misspelt")
    word = WORDS[SWAPPED]
    sign(word[0] + "X" + word[2:], SWAPPED).save(images / f"{SWAPPED:02d}.png")
    result, results = compare(images)
    summary = results.variants["misspelt"]
    assert [pair.prompt for pair in summary.worst_pairs if pair.score == "text_accuracy"] == [f"{SWAPPED:02d}"]
    assert (summary.mcnemar["exact"].only_reference, summary.mcnemar["exact"].only_variant) == (1, 0)
    assert summary.groups[0].image_scores["exact"].drop.mean == pytest.approx(1 / COUNT)
    assert gates(results)["text_accuracy_drop"] == "inconclusive"
    assert summary.minimum_detectable_effect["text_accuracy"] > 0.05
    assert result.exit_code == 0
    assert "verdict: inconclusive" in result.stdout


def test_shifted_colours(folder: Path) -> None:
    """Text is as it was; PSNR says what is wrong."""
    images = variant(folder, "shifted")
    for file in images.iterdir():
        pixels = np.array(Image.open(file)).astype(int) + np.array([12, -12, 0])
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file)
    result, results = compare(images)
    verdicts = gates(results)
    assert (verdicts["psnr_min"], verdicts["text_accuracy_drop"]) == ("failed", "passed")
    assert results.variants["shifted"].groups[0].pair_scores["psnr"].mean.mean == pytest.approx(
        20 * np.log10(255 / (12 * np.sqrt(2 / 3))), abs=0.3
    )
    assert result.exit_code == 1
    assert "verdict: failed" in result.stdout


def test_a_black_image_a_missing_one_and_one_of_another_size(folder: Path) -> None:
    images = variant(folder, "broken")
    Image.new("RGB", (SIDE, SIDE)).save(images / f"{BLACK:02d}.png")
    (images / f"{MISSING:02d}.png").unlink()
    larger = Image.open(images / f"{LARGER:02d}.png").resize((SIDE + 32, SIDE))
    larger.save(images / f"{LARGER:02d}.png")
    result, results = compare(images)
    summary = results.variants["broken"]
    assert [(pair.prompt, pair.failure) for pair in summary.failures] == [
        (f"{MISSING:02d}", "missing"),
        (f"{LARGER:02d}", "size 160x128 instead of 128x128"),
    ]
    assert [(entry.prompt, entry.defect, entry.new) for entry in summary.defects] == [(f"{BLACK:02d}", "black", True)]
    assert summary.num_pairs == COUNT - 2
    assert gates(results)["defects_max"] == "failed"
    assert result.exit_code == 1  # a gate has failed, whatever could not be compared
    for remark in ("black: 03, seed 0", "11, seed 0: missing", "15, seed 0: size 160x128 instead of 128x128"):
        assert remark in result.stdout
    assert "2 pairs of broken could not be compared. The first one: 11, seed 0: missing." in result.stderr


@pytest.mark.parametrize(
    ("num_wrong", "clip", "verdict", "code"),
    [
        (0, True, "passed", 0),
        (1, True, "inconclusive", 0),  # one image of 20 carries the whole drop
        (COUNT, True, "failed", 1),
        (0, False, "not measured", 2),
    ],
)
def test_images_that_mean_something_else(folder: Path, num_wrong: int, clip: bool, verdict: str, code: int) -> None:
    """Some signs say the next one's word. CLIP-I has gates against the reference and against the ground truth."""
    images = variant(folder, f"meaning-{num_wrong}-{clip}")
    for number in range(num_wrong):
        sign(WORDS[(number + 1) % COUNT], number).save(images / f"{number:02d}.png")
    Path("meaning.yaml").write_text("device: board\nevaluation: {gates: {clip_i_min: 0.98, clip_i_drop: 2%}}\n")
    arguments = ["--recipe", "meaning.yaml", "--pairs", "reference", images.name, "--prompts", "set.jsonl"]
    arguments += ["--ground-truth", "reference", "--output", "out-meaning"]
    with_clip = ["--metric", "clip_i", "--clip", f"local-dir:{DEMO_CLIP}"]
    result = CliRunner().invoke(evaluate, arguments + (with_clip if clip else []))
    verdicts = {gate.name: gate.verdict for gate in load_results(Path("out-meaning") / "results.json").gates}
    assert (verdicts["clip_i_min"], verdicts["clip_i_drop"]) == (verdict, verdict)
    assert result.exit_code == code, result.output


def test_what_is_missing_is_no_pass_even_where_all_gates_are(folder: Path) -> None:
    images = variant(folder, "short")
    (images / f"{MISSING:02d}.png").unlink()
    result, results = compare(images)
    assert set(gates(results).values()) == {"passed"}
    assert results.verdict == "not measured"
    assert result.exit_code == 2


def test_one_image_for_two_prompts_is_reported(folder: Path) -> None:
    images = variant(folder, "repeated")
    shutil.copyfile(images / "00.png", images / "01.png")
    _, results = compare(images)
    defects = [(entry.prompt, entry.defect, entry.new) for entry in results.variants["repeated"].defects]
    assert defects == [("00", "duplicate", True), ("01", "duplicate", True)]
    assert gates(results)["defects_max"] == "failed"


def test_unreadable_images_and_none_at_all(folder: Path) -> None:
    images = folder / "nothing"
    images.mkdir()
    for number in range(COUNT):
        (images / f"{number:02d}.png").write_bytes(b"no image")
    result, results = compare(images)
    assert results.variants["nothing"].num_pairs == 0
    assert {pair.failure for pair in results.variants["nothing"].failures} == {"unreadable (text, no image)"}
    assert set(gates(results).values()) == {"not measured"}
    assert result.exit_code == 2
