"""Signs with one or two lines of text, their prompts and their ground-truth images.

A sign is laid out on an 8 x 8 grid of 16-pixel patches, one patch per transformer token. Prompts need no fonts; only
`render_sign` opens font files (Debian packages fonts-dejavu-core and fonts-noto-cjk).
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import yaml

from ...prompts.prompt import Prompt

Language = Literal["en", "zh"]
Size = Literal["large", "small"]
Split = Literal["calibration", "evaluation"]

PATCH = 16  # side in pixels: 8 (VAE) x 2 (transformer patch)
GRID = 8  # side in patches
MAX_TEXT_LENGTH = 11  # characters including the space, so that every prompt fits in 32 tokens
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
HANZI = "春夏秋冬花茶书店美食海风雨雪明星新鲜平安福家园城红橙绿青蓝紫黑白黄粉灰大小上下中"

COLOURS = {
    "red": ("红", (200, 20, 30)),
    "orange": ("橙", (215, 95, 0)),
    "green": ("绿", (0, 120, 40)),
    "teal": ("青", (0, 115, 125)),
    "blue": ("蓝", (20, 50, 200)),
    "purple": ("紫", (125, 30, 160)),
    "brown": ("棕", (110, 60, 20)),
    "black": ("黑", (15, 15, 15)),
}
BACKGROUNDS = {
    "white": ("白", (250, 250, 250)),
    "yellow": ("黄", (252, 240, 180)),
    "pink": ("粉", (252, 218, 226)),
    "grey": ("灰", (215, 218, 222)),
}
PATTERNS = {"plain": "平整", "striped": "条纹", "dotted": "圆点"}
SIZES = {"large": "大", "small": "小"}
PLACES = {"top": "上方", "middle": "中间", "bottom": "下方"}
TEMPLATES: dict[Language, tuple[str, ...]] = {
    "en": (
        'a {pattern} {background} wall, {size} {colour} letters, {place}: "{text}"',
        'on {pattern} {background}, {place}, in {size} {colour}: "{text}"',
    ),
    "zh": (
        "{pattern}{background}墙{place}{colour}色{size}字：“{text}”",
        "在{pattern}{background}底{place}写{colour}色{size}字：“{text}”",
    ),
}
# (width, height) of a character's cell in patches.
CELLS: dict[tuple[Language, Size], tuple[int, int]] = {
    ("en", "large"): (2, 2),
    ("en", "small"): (1, 2),
    ("zh", "large"): (4, 4),
    ("zh", "small"): (2, 2),
}
# Patch row of the first line for each place. It does not depend on the number of lines, because a causal text encoder
# reads the first line before the second.
FIRST_ROW = {"top": 0, "middle": 2, "bottom": 4}
# Patches from one line to the next. Large letters need space between lines, or OCR joins the lines.
PITCH: dict[tuple[Language, Size], int] = {
    ("en", "large"): 3,
    ("en", "small"): 2,
    ("zh", "large"): 4,
    ("zh", "small"): 2,
}
FONTS: dict[tuple[Language, Size], tuple[str, int]] = {
    ("en", "large"): ("/usr/share/fonts/truetype/dejavu/DejaVuSansMono-Bold.ttf", 40),
    ("en", "small"): ("/usr/share/fonts/truetype/dejavu/DejaVuSansMono-Bold.ttf", 26),
    ("zh", "large"): ("/usr/share/fonts/opentype/noto/NotoSansCJK-Bold.ttc", 60),
    ("zh", "small"): ("/usr/share/fonts/opentype/noto/NotoSansCJK-Bold.ttc", 30),
}


@dataclass(frozen=True)
class Cell:
    """A character and its patches.

    Attributes:
        character: The character.
        column: First column, from the left.
        row: First row, from the top.
        width: Width in patches.
        height: Height in patches.
    """

    character: str
    column: int
    row: int
    width: int
    height: int


@dataclass(frozen=True)
class Sign:
    """The content of an image. `prompt` describes it and `render_sign` draws it.

    Attributes:
        lines: One or two lines of text.
        language: Language of prompt and text.
        colour: Key of `COLOURS`, for the text.
        background: Key of `BACKGROUNDS`.
        pattern: Key of `PATTERNS`, for the background.
        size: Size of the text.
        place: Key of `PLACES`.
        template: Index of the prompt's template.
    """

    lines: tuple[str, ...]
    language: Language
    colour: str
    background: str
    pattern: str
    size: Size
    place: str
    template: int

    @property
    def text(self) -> str:
        """The lines, separated by a space."""
        return " ".join(self.lines)

    @property
    def prompt(self) -> str:
        """The prompt."""
        chinese = self.language == "zh"
        return TEMPLATES[self.language][self.template].format(
            pattern=PATTERNS[self.pattern] if chinese else self.pattern,
            background=BACKGROUNDS[self.background][0] if chinese else self.background,
            colour=COLOURS[self.colour][0] if chinese else self.colour,
            size=SIZES[self.size] if chinese else self.size,
            place=PLACES[self.place] if chinese else self.place,
            text=self.text,
        )

    @property
    def cells(self) -> list[Cell]:
        """The characters with their patches, left-aligned."""
        width, height = CELLS[self.language, self.size]
        pitch = PITCH[self.language, self.size]
        top = min(FIRST_ROW[self.place], compute_lowest_row(self.language, self.size))
        return [
            Cell(character, column * width, top + row * pitch, width, height)
            for row, line in enumerate(self.lines)
            for column, character in enumerate(line)
        ]


def load_words(split: Split, language: Language) -> list[str]:
    """Returns the words reserved for calibration or evaluation, in the order of vocabulary.yaml."""
    reserved = yaml.safe_load(Path(__file__).with_name("vocabulary.yaml").read_text("utf-8"))
    return list(reserved[split][language].split())


@cache
def held_out_words() -> frozenset[str]:
    """Returns all words that training must not use."""
    return frozenset(
        word for split in get_args(Split) for language in get_args(Language) for word in load_words(split, language)
    )


def compute_lowest_row(language: Language, size: Size) -> int:
    """Returns the last row that leaves room for two lines. Two lines of large Chinese fill the whole sign."""
    height, pitch = CELLS[language, size][1], PITCH[language, size]
    return GRID - height - (0 if 2 * height == GRID else pitch)


def max_line_length(language: Language, size: Size) -> int:
    """Returns the number of characters that fit in a line."""
    return GRID // CELLS[language, size][0]


def draw_word(rng: random.Random, language: Language, max_length: int) -> str:
    """Draws 1 to `max_length` characters that are no reserved word. Half of the English ones are pronounceable."""
    while True:
        length = rng.randint(1, max_length)
        if language == "zh":
            word = "".join(rng.choices(HANZI, k=length))
        elif rng.random() < 0.5:
            word = "".join(rng.choices(LETTERS, k=length))
        else:
            word = "".join(rng.choice("AEIOU" if i % 2 else LETTERS) for i in range(length))
        if word not in held_out_words():
            return word


def draw_sign(rng: random.Random, max_length: int = GRID) -> Sign:
    """Draws a training sign with lines of at most `max_length` characters."""
    language: Language = rng.choice(get_args(Language))
    size: Size = rng.choice(get_args(Size))
    limit = min(max_length, max_line_length(language, size))
    lines = [draw_word(rng, language, limit) for _ in range(rng.choice((1, 1, 2)))]
    if len(" ".join(lines)) > MAX_TEXT_LENGTH:
        lines = lines[:1]
    return style_sign(rng, lines, language, size)


def style_sign(rng: random.Random, lines: list[str], language: Language, size: Size) -> Sign:
    """Draws everything else of a sign with these lines."""
    fills_grid = len(lines) * CELLS[language, size][1] == GRID
    return Sign(
        lines=tuple(lines),
        language=language,
        colour=rng.choice(list(COLOURS)),
        background=rng.choice(list(BACKGROUNDS)),
        pattern=rng.choice(list(PATTERNS)),
        size=size,
        place="top" if fills_grid else rng.choice(list(PLACES)),
        template=rng.randrange(2),
    )


def held_out_signs(split: Split) -> list[Sign]:
    """Returns one sign per reserved word, in a fixed random order. Every third sign has a second word of the split."""
    rng = random.Random(split)
    signs = []
    for language in get_args(Language):
        pool = load_words(split, language)
        for index, word in enumerate(pool):
            fits: list[Size] = [s for s in get_args(Size) if len(word) <= max_line_length(language, s)]
            size = rng.choice(fits)
            room = min(max_line_length(language, size), MAX_TEXT_LENGTH - 1 - len(word))
            partners = [w for w in pool if w != word and len(w) <= room]
            lines = [word, rng.choice(partners)] if index % 3 == 2 and partners else [word]
            signs.append(style_sign(rng, lines, language, size))
    rng.shuffle(signs)
    return signs


def prompt_set(split: Split) -> list[Prompt]:
    """Returns the held-out signs of a split as prompts, with categories for the tables of an evaluation."""
    return [
        Prompt(
            id=f"{split}-{number:03d}",
            prompt=sign.prompt,
            language=sign.language,
            lines=sign.lines,
            categories={
                "size": sign.size,
                "lines": str(len(sign.lines)),
                "pattern": sign.pattern,
                "place": sign.place,
                "colour": sign.colour,
                "template": str(sign.template + 1),
            },
        )
        for number, sign in enumerate(held_out_signs(split))
    ]


@cache
def render_glyph(character: str, language: Language, size: Size) -> npt.NDArray[np.float32]:
    """Renders a character centred in its cell; returns coverage in 0..1, shape (height, width) in pixels."""
    from PIL import Image, ImageDraw, ImageFont

    width, height = (patches * PATCH for patches in CELLS[language, size])
    path, points = FONTS[language, size]
    cell = Image.new("L", (width, height))
    font = ImageFont.truetype(path, points)
    box = font.getbbox("H" if language == "en" else "国", anchor="ls")
    baseline = (height - (box[3] - box[1])) // 2 - box[1]
    ImageDraw.Draw(cell).text((width / 2, baseline), character, fill=255, font=font, anchor="ms")
    return np.asarray(cell, np.float32) / np.float32(255)


def render_background(background: str, pattern: str, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Draws a background, shape (128, 128, 3), values 0..255. The prompt names its kind; the rest is random."""
    size = GRID * PATCH
    y, x = np.mgrid[0:size, 0:size].astype(np.float32)
    if pattern == "striped":
        direction, period = rng.choice((-1, 1)), rng.choice((12, 16, 24))
        shade = 0.5 - 0.5 * np.cos(2 * np.pi * ((x + direction * y) / period + rng.random()))
        depth = rng.uniform(20, 40)
    elif pattern == "dotted":
        shade = np.zeros_like(x)
        for _ in range(rng.integers(10, 24)):
            (u, v), radius = rng.uniform(0, size, 2), rng.uniform(3, 9)
            shade = np.maximum(shade, np.clip(radius - np.hypot(x - u, y - v), 0, 1))
        depth = rng.uniform(24, 44)
    else:
        angle = rng.uniform(0, 2 * np.pi)
        shade = (x * np.cos(angle) + y * np.sin(angle)) / size
        depth = rng.uniform(0, 16)
    canvas: npt.NDArray[np.float32] = (
        np.array(BACKGROUNDS[background][1], np.float32) - np.float32(depth) * shade[..., None]
    )
    return canvas


def render_sign(
    sign: Sign, rng: np.random.Generator | None = None, colour: tuple[int, int, int] | None = None
) -> npt.NDArray[np.uint8]:
    """Renders the ground-truth image of a sign.

    Args:
        sign: The sign.
        rng: Draws what the prompt leaves open: the details of the background, and on dotted walls an indent of half a
            patch. By default these are the same for every call.
        colour: RGB colour of the text instead of the sign's.

    Returns:
        RGB image, shape (128, 128, 3).
    """
    rng = rng or np.random.default_rng(0)
    ink = np.zeros((GRID * PATCH, GRID * PATCH), np.float32)
    can_indent = sign.pattern == "dotted" and max(cell.column + cell.width for cell in sign.cells) < GRID
    indent = PATCH // 2 * int(rng.integers(0, 2)) if can_indent else 0
    for cell in sign.cells:
        y, x = cell.row * PATCH, cell.column * PATCH + indent
        mask = render_glyph(cell.character, sign.language, sign.size)
        ink[y : y + mask.shape[0], x : x + mask.shape[1]] = mask
    canvas = render_background(sign.background, sign.pattern, rng)
    image = canvas + (np.array(colour or COLOURS[sign.colour][1], np.float32) - canvas) * ink[..., None]
    rounded: npt.NDArray[np.uint8] = np.rint(image).clip(0, 255).astype(np.uint8)
    return rounded
