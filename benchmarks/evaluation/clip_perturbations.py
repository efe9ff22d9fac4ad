"""What the demo's CLIP is tried on: true signs and their prompts, misspelt prompts, and pictures that differ a little.

`python -m edgepress.benchmarks.evaluation.clip_perturbations --output DIR` writes the pictures, and `trial.json`: of each sign its picture, its
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

from ...demo.signs import dataset
from ...demo.signs.dataset import Sign
from ...demo.training.train_clip import misspell
from ...storage.files import write_json

NUM_PERTURBED = 100  # signs whose pictures are changed
NUM_MISSPELLINGS = 9  # misspelt prompts that a picture's own stands against
NOISE_STD = 8.0  # standard deviation, in 8-bit steps
BRIGHTNESS_OFFSET = 10  # 8-bit steps
BLUR_STD = 1.0  # standard deviation, in pixels
JPEG_QUALITY = 50  # of a JPEG
ImageArray = npt.NDArray[np.uint8]
Perturbation = Callable[[Sign, ImageArray, random.Random], ImageArray]


def to_uint8(values: npt.NDArray[np.floating[Any]]) -> ImageArray:
    rounded: ImageArray = values.round().clip(0, 255).astype(np.uint8)
    return rounded


def add_noise(_: Sign, image: ImageArray, rng: random.Random) -> ImageArray:
    return to_uint8(image + np.random.default_rng(rng.getrandbits(32)).normal(0, NOISE_STD, image.shape))


def compress_jpeg(_: Sign, image: ImageArray, __: random.Random) -> ImageArray:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=JPEG_QUALITY)
    return np.asarray(Image.open(stream).convert("RGB"))


def brighten(_: Sign, image: ImageArray, __: random.Random) -> ImageArray:
    return to_uint8(image.astype(np.float64) + BRIGHTNESS_OFFSET)


def blur(_: Sign, image: ImageArray, __: random.Random) -> ImageArray:
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(BLUR_STD)))


def redraw_background(sign: Sign, _: ImageArray, rng: random.Random) -> ImageArray:
    """What the prompt leaves open, drawn anew."""
    return dataset.render_sign(sign, np.random.default_rng(rng.getrandbits(32)))


def change_tint(sign: Sign, _: ImageArray, rng: random.Random) -> ImageArray:
    return dataset.render_sign(
        replace(sign, ground=rng.choice([ground for ground in dataset.BACKGROUNDS if ground != sign.background]))
    )


def change_colour(sign: Sign, _: ImageArray, rng: random.Random) -> ImageArray:
    return dataset.render_sign(
        replace(sign, colour=rng.choice([name for name in dataset.COLOURS if name != sign.colour]))
    )


def misspell_image(sign: Sign, _: ImageArray, rng: random.Random) -> ImageArray:
    return dataset.render_sign(replace(sign, lines=misspell(rng, sign)))


def change_words(sign: Sign, _: ImageArray, rng: random.Random) -> ImageArray:
    """The words of another sign that has as many lines and is written alike."""
    candidates = [
        one
        for one in dataset.held_out_signs("evaluation")
        if (one.language, one.size, len(one.lines)) == (sign.language, sign.size, len(sign.lines))
        and not set(one.lines) & set(sign.lines)
    ]
    return dataset.render_sign(replace(sign, lines=rng.choice(candidates).lines))


PERTURBATIONS: dict[str, Perturbation] = {
    f"with noise, σ {NOISE_STD:.0f} of 255": add_noise,
    f"as JPEG of quality {JPEG_QUALITY}": compress_jpeg,
    f"{BRIGHTNESS_OFFSET} steps of 255 brighter": brighten,
    "on another wall of the same kind": redraw_background,
    f"blurred, σ {BLUR_STD:.0f}": blur,
    "on a wall of another tint": change_tint,
    "in another colour": change_colour,
    "with one wrong letter": misspell_image,
    "in other words": change_words,
}


def save_image(image: ImageArray, output: Path, name: str) -> str:
    Image.fromarray(image).save(output / f"{name}.png")
    return f"{name}.png"


def write_perturbed_images(held_out: list[Sign], output: Path) -> dict[str, list[str]]:
    """The changed pictures' files, by change."""
    files: dict[str, list[str]] = {name: [] for name in PERTURBATIONS}
    rng = random.Random(0)
    for number, sign in enumerate(held_out):
        image = dataset.render_sign(sign)
        for place, (name, change) in enumerate(PERTURBATIONS.items()):
            files[name].append(save_image(change(sign, image, rng), output, f"{number:03d}-{place}"))
    return files


@click.command(help=__doc__)
@click.option("--output", type=click.Path(path_type=Path), required=True)
def main(output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    held_out, rng = dataset.held_out_signs("evaluation"), random.Random(0)
    records = [
        {
            "picture": save_image(dataset.render_sign(sign), output, f"{number:03d}"),
            "prompt": sign.prompt,
            "misspelt": [replace(sign, lines=misspell(rng, sign)).prompt for _ in range(NUM_MISSPELLINGS)],
        }
        for number, sign in enumerate(held_out)
    ]
    write_json(
        {"signs": records, "changes": write_perturbed_images(held_out[:NUM_PERTURBED], output)}, output / "trial.json"
    )


if __name__ == "__main__":
    main()
