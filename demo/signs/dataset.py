"""The demo's task: signs with one or two lines of text, their prompts and their true pictures.

A sign stands on an 8 x 8 grid of 16-pixel patches, one patch being what one transformer token paints.
Everything needed for prompts works without fonts; only `render` opens font files (Debian packages
fonts-dejavu-core and fonts-noto-cjk).
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

PATCH = 16  # pixels a side: 8 (VAE) x 2 (transformer patch)
GRID = 8  # patches a side
MAX_TEXT_LENGTH = 11  # characters with the space, so that every prompt fits 32 tokens
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
        'a {pattern} {ground} wall, {size} {colour} letters, {place}: "{text}"',
        'on {pattern} {ground}, {place}, in {size} {colour}: "{text}"',
    ),
    "zh": (
        "{pattern}{ground}墙{place}{colour}色{size}字：“{text}”",
        "在{pattern}{ground}底{place}写{colour}色{size}字：“{text}”",
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
# meets the first line before it can know of a second.
FIRST_ROW = {"top": 0, "middle": 2, "bottom": 4}
# Patches from one line to the next; wide-set large letters need air, or OCR joins the lines.
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
    """One character and the patches that it fills, counted from the top left corner."""

    character: str
    column: int
    row: int
    width: int
    height: int


@dataclass(frozen=True)
class Sign:
    """What one picture shows; `prompt` asks for it and `render` draws it."""

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
        return " ".join(self.lines)

    @property
    def prompt(self) -> str:
        chinese = self.language == "zh"
        return TEMPLATES[self.language][self.template].format(
            pattern=PATTERNS[self.pattern] if chinese else self.pattern,
            ground=BACKGROUNDS[self.background][0] if chinese else self.background,
            colour=COLOURS[self.colour][0] if chinese else self.colour,
            size=SIZES[self.size] if chinese else self.size,
            place=PLACES[self.place] if chinese else self.place,
            text=self.text,
        )

    @property
    def cells(self) -> list[Cell]:
        """Left-aligned cells, one line below the other."""
        width, height = CELLS[self.language, self.size]
        pitch = PITCH[self.language, self.size]
        top = min(FIRST_ROW[self.place], compute_lowest_row(self.language, self.size))
        return [
            Cell(character, column * width, top + row * pitch, width, height)
            for row, line in enumerate(self.lines)
            for column, character in enumerate(line)
        ]


def load_words(split: Split, language: Language) -> list[str]:
    """The words reserved for calibration or evaluation, in the order of `words.yaml`."""
    reserved = yaml.safe_load(Path(__file__).with_name("vocabulary.yaml").read_text("utf-8"))
    return list(reserved[split][language].split())


@cache
def held_out_words() -> frozenset[str]:
    """Every word that training must not draw."""
    return frozenset(
        word for split in get_args(Split) for language in get_args(Language) for word in load_words(split, language)
    )


def compute_lowest_row(language: Language, size: Size) -> int:
    """The last row where a sign may begin so that two lines fit; two lines of large Chinese fill the whole sign."""
    height, pitch = CELLS[language, size][1], PITCH[language, size]
    return GRID - height - (0 if 2 * height == GRID else pitch)


def max_line_length(language: Language, size: Size) -> int:
    return GRID // CELLS[language, size][0]


def draw_word(rng: random.Random, language: Language, max_length: int) -> str:
    """A random string of 1 to `longest` characters that is not reserved; half of the English ones can be spoken."""
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
    """A training sign with words of at most `longest` characters."""
    language: Language = rng.choice(get_args(Language))
    size: Size = rng.choice(get_args(Size))
    limit = min(max_length, max_line_length(language, size))
    lines = [draw_word(rng, language, limit) for _ in range(rng.choice((1, 1, 2)))]
    if len(" ".join(lines)) > MAX_TEXT_LENGTH:
        lines = lines[:1]
    return style_sign(rng, lines, language, size)


def style_sign(rng: random.Random, lines: list[str], language: Language, size: Size) -> Sign:
    """The sign with these lines and everything else drawn."""
    tall = len(lines) * CELLS[language, size][1] == GRID
    return Sign(
        lines=tuple(lines),
        language=language,
        colour=rng.choice(list(COLOURS)),
        background=rng.choice(list(BACKGROUNDS)),
        pattern=rng.choice(list(PATTERNS)),
        size=size,
        place="top" if tall else rng.choice(list(PLACES)),
        template=rng.randrange(2),
    )


def held_out_signs(split: Split) -> list[Sign]:
    """One sign a reserved word, in a fixed shuffled order; every third also carries a second word of the split."""
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
    """The held-out signs of a split as prompts, with the categories that evaluation makes tables of."""
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
    """Coverage in 0..1 of a character centred in its cell, shape (height, width) in pixels."""
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
    """A background, shape (128, 128, 3), values 0..255. The prompt names its kind; the rest is chance."""
    side = GRID * PATCH
    y, x = np.mgrid[0:side, 0:side].astype(np.float32)
    if pattern == "striped":
        direction, period = rng.choice((-1, 1)), rng.choice((12, 16, 24))
        shade = 0.5 - 0.5 * np.cos(2 * np.pi * ((x + direction * y) / period + rng.random()))
        depth = rng.uniform(20, 40)
    elif pattern == "dotted":
        shade = np.zeros_like(x)
        for _ in range(rng.integers(10, 24)):
            (u, v), radius = rng.uniform(0, side, 2), rng.uniform(3, 9)
            shade = np.maximum(shade, np.clip(radius - np.hypot(x - u, y - v), 0, 1))
        depth = rng.uniform(24, 44)
    else:
        angle = rng.uniform(0, 2 * np.pi)
        shade = (x * np.cos(angle) + y * np.sin(angle)) / side
        depth = rng.uniform(0, 16)
    canvas: npt.NDArray[np.float32] = (
        np.array(BACKGROUNDS[background][1], np.float32) - np.float32(depth) * shade[..., None]
    )
    return canvas


def render_sign(
    sign: Sign, rng: np.random.Generator | None = None, colour: tuple[int, int, int] | None = None
) -> npt.NDArray[np.uint8]:
    """A true picture, shape (128, 128, 3), RGB.

    What the prompt leaves open (the background's details; on dotted walls half a patch of indent) is drawn from `rng`,
    or else the same each time. `colour` writes in another colour than the sign's.
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
