"""Measures what OCR reads: words of the evaluation set by size, shape, angle and ink.

Run by `make bench-ocr`. Every image has one word in one color on a flat ground.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import click
import numpy as np

from ...common.markdown_table import render_table
from ...common.progress import progress_bars
from ...common.threads import map_threads
from ...demo.signs.dataset import FONTS, Language, load_words
from ...evaluate.backends.text_layout import read_text
from ...evaluate.backends.text_matching import score_text
from ...evaluate.images.types import ImageArray
from ...prompts.prompt import Prompt
from ..common.report import write_section

LANGUAGES: tuple[Language, ...] = ("en", "zh")
NUM_WORDS = 2  # per language and case
GROUND, INK = (235, 230, 220), (20, 30, 90)


class Case(NamedTuple):
    """A kind of image.

    Attributes:
        name: What the table calls it.
        width: Width of the image in pixels.
        height: Height of the image in pixels.
        letters: Height of the letters' font in pixels.
        ink: Color of the text.
        turns: Quarter turns, clockwise, of the whole image.
        mirrored: Whether the whole image is mirrored.
        stacked: Whether the characters run downwards.
    """

    name: str
    width: int
    height: int
    letters: int
    ink: tuple[int, int, int] = INK
    turns: int = 0
    mirrored: bool = False
    stacked: bool = False


CASES = (
    *(
        Case(f"{side}×{side}, letters of {letters}", side, side, letters)
        for side, sizes in ((128, (12, 24)), (512, (20, 100)), (1024, (20, 60, 200)), (2048, (40,)))
        for letters in sizes
    ),
    *(
        Case(f"banner {ratio}:1, letters of {letters}", 64 * ratio, 64, letters)
        for ratio in (8, 14)
        for letters in (19, 38)
    ),
    Case("column 1:9, letters of 24", 128, 1152, 24),
    Case("column 1:9, characters downwards", 128, 1152, 80, stacked=True),
    Case("512×512, characters downwards", 512, 512, 60, stacked=True),
    *(Case(f"512×512, turned by {90 * turns}°", 512, 512, 60, turns=turns) for turns in (1, 2, 3)),
    Case("512×512, mirrored", 512, 512, 60, mirrored=True),
    *(
        Case(
            f"512×512, contrast {contrast}",
            512,
            512,
            60,
            ink=(GROUND[0] - contrast, GROUND[1] - contrast, GROUND[2] - contrast),
        )
        for contrast in (10, 20, 40)
    ),
    Case("512×512, white", 512, 512, 60, ink=(255, 255, 255)),
    Case("512×512, red", 512, 512, 60, ink=(200, 30, 30)),
    Case("512×512, yellow", 512, 512, 60, ink=(240, 210, 40)),
)


class WordReading(NamedTuple):
    """What was read in an image: text accuracy in 0..1, and the remarks without the text."""

    accuracy: float
    remarks: tuple[str, ...]


def draw_word(word: str, language: Language, case: Case) -> ImageArray:
    """Draws a word in the middle of an image."""
    from PIL import Image, ImageDraw, ImageFont

    image = Image.new("RGB", (case.width, case.height), GROUND)
    draw = ImageDraw.Draw(image)
    font = ImageFont.truetype(FONTS[language, "large"][0], case.letters)
    parts = list(word) if case.stacked else [word]
    top = case.height / 2 - 0.5 * case.letters * 1.1 * (len(parts) - 1)
    for number, part in enumerate(parts):
        draw.text((case.width / 2, top + 1.1 * case.letters * number), part, case.ink, font, anchor="mm")
    pixels = np.rot90(np.asarray(image), -case.turns)
    return np.ascontiguousarray(pixels[:, ::-1] if case.mirrored else pixels)


def read_word(word: str, language: Language, case: Case) -> WordReading:
    """Draws a word and reads it."""
    prompt = Prompt(id=word, prompt=word, language=language, lines=(word,))
    reading = read_text(draw_word(word, language, case), prompt)
    accuracy = score_text(prompt.lines, reading.lines, language)["text_accuracy"] or 0.0
    return WordReading(accuracy, tuple(remark.partition(": ")[0] for remark in reading.remarks))


def select_words(language: Language) -> list[str]:
    """Returns short words, which are the hardest to find."""
    return sorted(load_words("evaluation", language), key=lambda word: (len(word), word))[-NUM_WORDS:]


def list_rows(outcomes: dict[tuple[Case, Language], Sequence[WordReading]]) -> Iterator[list[str]]:
    """Yields the rows of the table: share of text that was read, by language, and the remarks with their number."""
    for case in CASES:
        shares = [f"{np.mean([each.accuracy for each in outcomes[case, language]]):.0%}" for language in LANGUAGES]
        remarks = [remark for language in LANGUAGES for each in outcomes[case, language] for remark in each.remarks]
        counts = [f"{remark} ({remarks.count(remark)})" for remark in dict.fromkeys(remarks)]
        yield [case.name, *shares, "; ".join(counts)]


def render_section(outcomes: dict[tuple[Case, Language], Sequence[WordReading]]) -> str:
    """Returns the section of docs/benchmarks/evaluation.md."""
    return "\n\n".join(
        [
            "## What OCR reads",
            f"One word in the middle of a flat ground, {NUM_WORDS} words for each language and row, sizes in pixels: "
            "share of words (English) or characters (Chinese) that count as read, and the remarks with their number. "
            "Turned and mirrored text must not count.",
            render_table(["image", "English", "Chinese", "remarks"], list(list_rows(outcomes))),
        ]
    )


@click.command(help=__doc__)
def main() -> None:
    jobs = [(word, language, case) for case in CASES for language in LANGUAGES for word in select_words(language)]
    outcomes: dict[tuple[Case, Language], list[WordReading]] = {}
    with progress_bars() as progress:
        results = map_threads(lambda job: read_word(*job), jobs)
        for number, ((_, language, case), outcome) in enumerate(zip(jobs, results, strict=True), 1):
            outcomes.setdefault((case, language), []).append(outcome)
            progress("reading", number, len(jobs))
    body = render_section(dict(outcomes))
    write_section("ocr", "make bench-ocr", body)
    click.echo(body)


if __name__ == "__main__":
    main()
