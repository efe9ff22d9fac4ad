"""What the demo's CLIP can tell apart: prompts and pictures that it was not trained on, and two pictures that differ.

`make bench-clip`. All pictures are true signs, which need the fonts that demo/signs.py names.
"""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from dataclasses import replace

import click
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter
from scipy.stats import binomtest

from ..demo import signs
from ..demo.signs import Sign
from ..demo.train_clip import misspelt
from ..evaluate.clip.embed import Clip, clip_of, cosine
from ..evaluate.registry import Picture
from ..progress import Progress, bars
from ..sources import DEMO_CLIP
from .report import table, write_section

PAIRS = 100  # signs whose pictures are changed
WRONG = 9  # misspelt prompts that a picture's own stands against
NOISE = 8.0  # standard deviation, in 8-bit steps
BRIGHTER = 10  # 8-bit steps
BLUR = 1.0  # standard deviation, in pixels
QUALITY = 50  # of a JPEG
Embeddings = npt.NDArray[np.float64]  # (n, width)
Change = Callable[[Sign, Picture, random.Random], Picture]


# ---------------------------------------------------------------- prompts and pictures


def asked(clip: Clip, prompt: str) -> npt.NDArray[np.float64]:
    """A prompt's embedding (width,); all of the demo's fit."""
    embedding = clip.text(prompt)
    if embedding is None:
        raise click.ClickException(f"the demo's CLIP does not read the whole prompt {prompt!r}")
    return embedding


def nearest(ones: Embeddings, others: Embeddings) -> list[bool]:
    """Whether each is nearer to the other of its own number than to any other."""
    found = (ones @ others.T).argmax(1) == np.arange(len(ones))
    return [bool(value) for value in found]


def spelt_best(clip: Clip, sign: Sign, picture: npt.NDArray[np.float64], rng: random.Random) -> bool:
    """Whether a picture is nearer to its prompt than to any with one wrong letter."""
    wrong = [replace(sign, lines=misspelt(rng, sign)).prompt for _ in range(WRONG)]
    return bool(picture @ asked(clip, sign.prompt) > max(picture @ asked(clip, prompt) for prompt in wrong))


def found(clip: Clip, drawn: list[Sign], progress: Progress) -> list[tuple[str, list[bool]]]:
    """What is found of what, by its words."""
    rng = random.Random(0)
    pictured = []
    for number, sign in enumerate(drawn):
        progress("looking", number, len(drawn))
        pictured.append(clip.picture(signs.render(sign)))
    progress("looking", len(drawn), len(drawn))
    pictures, prompts = np.stack(pictured), np.stack([asked(clip, sign.prompt) for sign in drawn])
    spelt = [spelt_best(clip, sign, picture, rng) for sign, picture in zip(drawn, pictured, strict=True)]
    return [
        (f"a picture's own prompt is the nearest of {len(drawn)}", nearest(pictures, prompts)),
        (f"a prompt's own picture is the nearest of {len(drawn)}", nearest(prompts, pictures)),
        (f"a picture is nearer to its prompt than to {WRONG} with one wrong letter each", spelt),
    ]


# ---------------------------------------------------------------- pictures and pictures


def clipped(values: npt.NDArray[np.floating]) -> Picture:
    return values.round().clip(0, 255).astype(np.uint8)


def noisy(_: Sign, picture: Picture, rng: random.Random) -> Picture:
    return clipped(picture + np.random.default_rng(rng.getrandbits(32)).normal(0, NOISE, picture.shape))


def as_jpeg(_: Sign, picture: Picture, __: random.Random) -> Picture:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "JPEG", quality=QUALITY)
    return np.asarray(Image.open(stream).convert("RGB"))


def brighter(_: Sign, picture: Picture, __: random.Random) -> Picture:
    return clipped(picture.astype(np.float64) + BRIGHTER)


def on_another_wall(sign: Sign, _: Picture, rng: random.Random) -> Picture:
    """What the prompt leaves open, drawn anew."""
    return signs.render(sign, np.random.default_rng(rng.getrandbits(32)))


def blurred(_: Sign, picture: Picture, __: random.Random) -> Picture:
    return np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(BLUR)))


def other(key: str, values: list[str]) -> Change:
    """A picture of the same sign but for one property."""
    return lambda sign, _, rng: signs.render(
        replace(sign, **{key: rng.choice([value for value in values if value != getattr(sign, key)])})
    )


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
    "on a wall of another tint": other("ground", list(signs.GROUNDS)),
    "in another colour": other("colour", list(signs.COLOURS)),
    "with one wrong letter": misspelt_picture,
    "in other words": in_other_words,
}


def likened(clip: Clip, drawn: list[Sign], progress: Progress) -> dict[str, list[float]]:
    """CLIP-I of every sign's picture and the changed one, by change."""
    values: dict[str, list[float]] = {name: [] for name in CHANGES}
    rng = random.Random(0)
    for number, sign in enumerate(drawn):
        progress("changing", number, len(drawn))
        true = signs.render(sign)
        for name, change in CHANGES.items():
            values[name].append(cosine(clip.picture(true), clip.picture(change(sign, true, rng))))
    progress("changing", len(drawn), len(drawn))
    return values


# ---------------------------------------------------------------- the section


def share(hits: list[bool]) -> str:
    """Per cent, and the 95 % interval after Wilson."""
    interval = binomtest(sum(hits), len(hits)).proportion_ci(method="wilson")
    return f"{np.mean(hits):.1%} [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"


def body(shares: list[tuple[str, list[bool]]], values: dict[str, list[float]]) -> str:
    rows = []
    for name, ones in values.items():
        low, high = np.quantile(ones, [0.05, 0.95])
        rows.append([name, f"{np.mean(ones):.3f} [{low:.3f}, {high:.3f}]"])
    parts = [
        "## What the demo's CLIP can tell apart",
        f"True signs of the evaluation set ({len(shares[0][1])}), whose words training never drew; 95 % after Wilson.",
        table(["", "share"], [[name, share(hits)] for name, hits in shares]),
        f"CLIP-I of two pictures, {PAIRS} of these signs: mean and the range of nine in ten.",
        table(["the second picture is the first one …", "CLIP-I"], rows),
    ]
    return "\n\n".join(parts)


@click.command(help=__doc__)
def main() -> None:
    clip, drawn = clip_of(f"local-dir:{DEMO_CLIP}"), signs.held_out_signs("evaluation")
    with bars() as progress:
        text = body(found(clip, drawn, progress), likened(clip, drawn[:PAIRS], progress))
    write_section("clip", "make bench-clip", text)
    click.echo(text)


if __name__ == "__main__":
    main()
