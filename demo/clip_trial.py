"""What the demo's CLIP is tried on: true signs and their prompts, misspelt prompts, and pictures that differ a little.

`python -m edgepress.demo.clip_trial --output DIR` writes the pictures, and `trial.json`: of each sign its picture, its
prompt and misspelt ones, and by name of a change the changed pictures of the first signs. It needs the fonts that
signs.py names.
"""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from ..checkpoint import write_json
from . import signs
from .signs import Sign
from .train_clip import misspelt

PAIRS = 100  # signs whose pictures are changed
WRONG = 9  # misspelt prompts that a picture's own stands against
NOISE = 8.0  # standard deviation, in 8-bit steps
BRIGHTER = 10  # 8-bit steps
BLUR = 1.0  # standard deviation, in pixels
QUALITY = 50  # of a JPEG
Picture = npt.NDArray[np.uint8]
Change = Callable[[Sign, Picture, random.Random], Picture]


def clipped(values: npt.NDArray[np.floating[Any]]) -> Picture:
    rounded: Picture = values.round().clip(0, 255).astype(np.uint8)
    return rounded


def noisy(_: Sign, picture: Picture, rng: random.Random) -> Picture:
    return clipped(picture + np.random.default_rng(rng.getrandbits(32)).normal(0, NOISE, picture.shape))


def as_jpeg(_: Sign, picture: Picture, __: random.Random) -> Picture:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "JPEG", quality=QUALITY)
    return np.asarray(Image.open(stream).convert("RGB"))


def brighter(_: Sign, picture: Picture, __: random.Random) -> Picture:
    return clipped(picture.astype(np.float64) + BRIGHTER)


def blurred(_: Sign, picture: Picture, __: random.Random) -> Picture:
    return np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(BLUR)))


def on_another_wall(sign: Sign, _: Picture, rng: random.Random) -> Picture:
    """What the prompt leaves open, drawn anew."""
    return signs.render(sign, np.random.default_rng(rng.getrandbits(32)))


def on_another_tint(sign: Sign, _: Picture, rng: random.Random) -> Picture:
    return signs.render(replace(sign, ground=rng.choice([ground for ground in signs.GROUNDS if ground != sign.ground])))


def in_another_colour(sign: Sign, _: Picture, rng: random.Random) -> Picture:
    return signs.render(replace(sign, colour=rng.choice([name for name in signs.COLOURS if name != sign.colour])))


def misspelt_picture(sign: Sign, _: Picture, rng: random.Random) -> Picture:
    return signs.render(replace(sign, lines=misspelt(rng, sign)))


def in_other_words(sign: Sign, _: Picture, rng: random.Random) -> Picture:
    """The words of another sign that has as many lines and is written alike."""
    alike = [
        one
        for one in signs.held_out_signs("evaluation")
        if (one.language, one.size, len(one.lines)) == (sign.language, sign.size, len(sign.lines))
        and not set(one.lines) & set(sign.lines)
    ]
    return signs.render(replace(sign, lines=rng.choice(alike).lines))


CHANGES: dict[str, Change] = {
    f"with noise, σ {NOISE:.0f} of 255": noisy,
    f"as JPEG of quality {QUALITY}": as_jpeg,
    f"{BRIGHTER} steps of 255 brighter": brighter,
    "on another wall of the same kind": on_another_wall,
    f"blurred, σ {BLUR:.0f}": blurred,
    "on a wall of another tint": on_another_tint,
    "in another colour": in_another_colour,
    "with one wrong letter": misspelt_picture,
    "in other words": in_other_words,
}


def written(picture: Picture, output: Path, name: str) -> str:
    Image.fromarray(picture).save(output / f"{name}.png")
    return f"{name}.png"


def changed(drawn: list[Sign], output: Path) -> dict[str, list[str]]:
    """The changed pictures' files, by change."""
    files: dict[str, list[str]] = {name: [] for name in CHANGES}
    rng = random.Random(0)
    for number, sign in enumerate(drawn):
        true = signs.render(sign)
        for place, (name, change) in enumerate(CHANGES.items()):
            files[name].append(written(change(sign, true, rng), output, f"{number:03d}-{place}"))
    return files


@click.command(help=__doc__)
@click.option("--output", type=click.Path(path_type=Path), required=True)
def main(output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    drawn, rng = signs.held_out_signs("evaluation"), random.Random(0)
    told = [
        {
            "picture": written(signs.render(sign), output, f"{number:03d}"),
            "prompt": sign.prompt,
            "misspelt": [replace(sign, lines=misspelt(rng, sign)).prompt for _ in range(WRONG)],
        }
        for number, sign in enumerate(drawn)
    ]
    write_json({"signs": told, "changes": changed(drawn[:PAIRS], output)}, output / "trial.json")


if __name__ == "__main__":
    main()
