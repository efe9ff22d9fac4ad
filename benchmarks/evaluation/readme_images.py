"""Draws the comparison of four prompts in the README: reference, RTN, AWQ, edgepress, and their differences.

Run by `make readme-images`. The demo is quantized three times and its images are generated for held-out prompts; both
are cached in artifacts/readme-images, so a second run only draws. Prompts are chosen by rule and not by hand: the worst
and the median of the English ones and the quartiles of the Chinese ones, by the PSNR of RTN.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import click
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ...common.progress import Progress, progress_bars
from ...demo.signs.ground_truth import parse_prompt
from ...evaluate.evaluator import run_evaluation
from ...evaluate.images.image_file import load_image
from ...evaluate.images.types import ImageArray
from ...evaluate.plan import EvaluationOptions, plan_evaluation
from ...evaluate.results.schema import Results, SampleResult
from ...pipelines.hub import DEMO_PIPELINE
from ...quantize.pipeline import quantize_pipeline
from ...recipes.loader import load_recipe

ROOT = Path(__file__).parents[2]
OUTPUT = ROOT / "docs" / "images" / "demo-comparison.png"
METHODS = {"rtn": "RTN", "awq": "AWQ", "best": "edgepress"}  # methods and the titles of their columns
NUM_PROMPTS = 128  # the first of 305 held-out prompts, as in docs/benchmarks/quality.md
ROWS = (("en", 0.0), ("zh", 0.25), ("en", 0.5), ("zh", 0.75))  # language and quantile of RTN's PSNR
GAIN = 8  # of the differences


@dataclass(frozen=True)
class Comparison:
    """One row of the drawing.

    Attributes:
        prompt: The prompt.
        translation: The English prompt for the same sign, if the prompt is Chinese.
        reference: The image of the original pipeline.
        images: The image of each method.
        psnr: PSNR of each method in dB; None if the image equals the reference.
    """

    prompt: str
    translation: str | None
    reference: ImageArray
    images: dict[str, ImageArray]
    psnr: dict[str, float | None]


def evaluate_methods(folder: Path, progress: Progress) -> Results:
    """Quantizes the demo with every method and compares the images with those of the reference."""
    recipe = load_recipe("orin")
    candidates = []
    for method in METHODS:
        quantize = recipe.quantize.model_copy(update={"method": method})
        changed = recipe.model_copy(update={"quantize": quantize})
        result = quantize_pipeline(changed, DEMO_PIPELINE, folder / method, progress=progress)
        candidates.append(f"{method}={result.output / 'model'}")
    options = EvaluationOptions(
        candidates=tuple(candidates),
        limit=NUM_PROMPTS,
        metrics=("psnr",),
        gates=False,
        noise_floor=False,
        output=folder / "evaluation",
    )
    return run_evaluation(plan_evaluation(recipe, options), progress)


def select_samples(results: Results) -> list[SampleResult]:
    """Selects, for every row, the sample of its language whose RTN PSNR is at the quantile."""
    selected = []
    for language, quantile in ROWS:
        samples = [sample for sample in results.samples if sample.prompt.language == language]
        samples.sort(key=lambda sample: _get_psnr(sample, "rtn") or np.inf)
        selected.append(samples[round(quantile * (len(samples) - 1))])
    return selected


def load_comparison(sample: SampleResult, results: Results) -> Comparison:
    """Loads the images of a sample."""
    folder = Path(results.identity.image_folder)
    assert sample.reference is not None
    images = {}
    for method in METHODS:
        image = sample.variants[method].image
        assert image is not None
        images[method] = load_image(folder / image.file)
    sign = parse_prompt(sample.prompt)
    return Comparison(
        prompt=sample.prompt.prompt,
        translation=replace(sign, language="en").prompt if sign.language != "en" else None,
        reference=load_image(folder / sample.reference.file),
        images=images,
        psnr={method: _get_psnr(sample, method) for method in METHODS},
    )


def _get_psnr(sample: SampleResult, method: str) -> float | None:
    return sample.variants[method].values["psnr"]


# ---------------------------------------------------------------- drawing; lengths in pixels


TILE = 256  # side of an image, a multiple of the demo's 128
GAP = 14  # between images
GROUP_GAP = 26  # more, before the differences
MARGIN = 28
HEADER = 112
ROW = TILE + 98
FOOTER = 84
PAPER, INK, MUTED, ACCENT, BORDER = "#ffffff", "#1f2328", "#656d76", "#0a6b4b", "#d0d7de"
TITLE_SIZE, TEXT_SIZE = 30, 24
CJK_FONT = "/usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc"
NOTE = (
    f"Prompts are chosen by the PSNR of RTN among {NUM_PROMPTS} held-out prompts: worst and median of the English",
    "ones, lower and upper quartile of the Chinese ones. All images of a row start from the same noise.",
)


def draw_comparison(comparisons: Sequence[Comparison], means: Mapping[str, float]) -> Image.Image:
    """Draws a header, one row per prompt, and a note on how the prompts were chosen.

    Args:
        comparisons: The rows.
        means: Mean PSNR of each method over all prompts, in dB.
    """
    columns = [MARGIN + number * (TILE + GAP) + (GROUP_GAP if number > len(METHODS) else 0) for number in range(6)]
    size = columns[-1] + TILE + MARGIN, HEADER + len(comparisons) * ROW + FOOTER
    canvas = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(canvas)
    titles = ["Reference", *METHODS.values(), f"Difference, amplified {GAIN}x"]
    subtitles = ["16 bits", *(f"4 bits, mean {means[method]:.1f} dB" for method in METHODS), "RTN", METHODS["best"]]
    for x, title in zip(columns, titles, strict=False):
        draw.text((x, 60), title, _choose_color(title), _load_font(TITLE_SIZE), anchor="ls")
    for x, subtitle in zip(columns, subtitles, strict=True):
        color = ACCENT if subtitle == METHODS["best"] else MUTED
        draw.text((x, 94), subtitle, color, _load_font(TEXT_SIZE), anchor="ls")
    for number, comparison in enumerate(comparisons):
        _draw_row(canvas, comparison, columns, HEADER + number * ROW)
    for number, line in enumerate(NOTE):
        y = size[1] - FOOTER + 26 + 32 * number
        draw.text((MARGIN, y), line, MUTED, _load_font(TEXT_SIZE), anchor="ls")
    return canvas


def _draw_row(canvas: Image.Image, comparison: Comparison, columns: Sequence[int], top: int) -> None:
    draw = ImageDraw.Draw(canvas)
    font = _load_font(TEXT_SIZE, comparison.prompt)
    draw.text((columns[0], top + 32), comparison.prompt, INK, font, anchor="ls")
    if comparison.translation:
        left = columns[0] + draw.textlength(comparison.prompt, font) + 24
        draw.text((left, top + 32), comparison.translation, MUTED, _load_font(22, comparison.translation), anchor="ls")
    differences = [_amplify(comparison.reference, comparison.images[method]) for method in ("rtn", "best")]
    images = [comparison.reference, *comparison.images.values(), *differences]
    for x, image in zip(columns, images, strict=True):
        canvas.paste(Image.fromarray(image).resize((TILE, TILE), Image.Resampling.NEAREST), (x, top + 46))
        draw.rectangle((x - 1, top + 45, x + TILE, top + 46 + TILE), outline=BORDER)
    for x, (method, psnr) in zip(columns[1:], comparison.psnr.items(), strict=False):
        text = "identical" if psnr is None else f"PSNR {psnr:.1f} dB"
        position = x + TILE / 2, top + TILE + 76
        draw.text(position, text, _choose_color(METHODS[method]), _load_font(TEXT_SIZE), anchor="ms")


def _choose_color(title: str) -> str:
    return ACCENT if title == METHODS["best"] else INK


def _amplify(reference: ImageArray, image: ImageArray) -> ImageArray:
    """Returns the absolute difference, amplified."""
    difference = np.abs(image.astype(np.int16) - reference)
    amplified: ImageArray = (GAIN * difference).clip(0, 255).astype(np.uint8)
    return amplified


def _load_font(size: int, text: str = "") -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Loads Pillow's own font, or a Chinese one if the text needs it."""
    if text.isascii():
        return ImageFont.load_default(size)
    return ImageFont.truetype(CJK_FONT, size)


@click.command(help=__doc__)
@click.option("--folder", type=click.Path(path_type=Path), default=Path("artifacts/readme-images"), show_default=True)
@click.option("--output", type=click.Path(path_type=Path), default=OUTPUT, help="The PNG to write.")
def main(folder: Path, output: Path) -> None:
    with progress_bars() as progress:
        results = evaluate_methods(folder, progress)
    comparisons = [load_comparison(sample, results) for sample in select_samples(results)]
    means = {method: results.variants[method].groups[0].pair_scores["psnr"].mean.mean for method in METHODS}
    draw_comparison(comparisons, means).save(output, optimize=True)
    click.echo(f"Wrote {output}: {output.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
