"""Signs to test the demo's CLIP with: ground-truth images, misspelled prompts, and perturbed images.

Drawing signs needs the fonts that demo/signs/dataset.py names.
"""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from ...demo.signs import dataset
from ...demo.signs.dataset import Sign
from ...demo.training.train_clip import misspell

NUM_PERTURBED = 100  # signs whose images are perturbed
NUM_MISSPELLINGS = 9  # misspelled prompts per sign
NOISE_STD = 8.0  # in 8-bit steps
BRIGHTNESS_OFFSET = 10  # in 8-bit steps
BLUR_STD = 1.0  # in pixels
JPEG_QUALITY = 50
ImageArray = npt.NDArray[np.uint8]
Perturbation = Callable[[Sign, ImageArray, random.Random], ImageArray]


@dataclass(frozen=True)
class SignSample:
    """A held-out sign.

    Attributes:
        image: The ground-truth image, shape (height, width, 3).
        prompt: Its prompt.
        misspelled_prompts: Prompts for the same sign with one wrong character each.
        perturbed_images: Perturbed images by the name of the perturbation; empty for most signs.
    """

    image: ImageArray
    prompt: str
    misspelled_prompts: list[str]
    perturbed_images: dict[str, ImageArray] = field(default_factory=dict)


def make_samples() -> list[SignSample]:
    """Draws the signs of the evaluation set; the first `NUM_PERTURBED` are perturbed as well."""
    spelling_rng, perturbation_rng = random.Random(0), random.Random(0)
    samples = []
    for number, sign in enumerate(dataset.held_out_signs("evaluation")):
        image = dataset.render_sign(sign)
        prompts = [replace(sign, lines=misspell(spelling_rng, sign)).prompt for _ in range(NUM_MISSPELLINGS)]
        perturbed = {
            name: perturb(sign, image, perturbation_rng)
            for name, perturb in (PERTURBATIONS.items() if number < NUM_PERTURBED else ())
        }
        samples.append(SignSample(image, sign.prompt, prompts, perturbed))
    return samples


def to_uint8(values: npt.NDArray[np.floating[Any]]) -> ImageArray:
    """Rounds and clips to 0 ... 255."""
    rounded: ImageArray = values.round().clip(0, 255).astype(np.uint8)
    return rounded


def add_noise(_: Sign, image: ImageArray, rng: random.Random) -> ImageArray:
    """Adds Gaussian noise."""
    return to_uint8(image + np.random.default_rng(rng.getrandbits(32)).normal(0, NOISE_STD, image.shape))


def compress_jpeg(_: Sign, image: ImageArray, __: random.Random) -> ImageArray:
    """Compresses as JPEG and decompresses."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=JPEG_QUALITY)
    return np.asarray(Image.open(stream).convert("RGB"))


def brighten(_: Sign, image: ImageArray, __: random.Random) -> ImageArray:
    """Adds a constant."""
    return to_uint8(image.astype(np.float64) + BRIGHTNESS_OFFSET)


def blur(_: Sign, image: ImageArray, __: random.Random) -> ImageArray:
    """Applies a Gaussian blur."""
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(BLUR_STD)))


def redraw_background(sign: Sign, _: ImageArray, rng: random.Random) -> ImageArray:
    """Draws what the prompt leaves open with another seed."""
    return dataset.render_sign(sign, np.random.default_rng(rng.getrandbits(32)))


def change_background(sign: Sign, _: ImageArray, rng: random.Random) -> ImageArray:
    """Draws the sign on a wall of another tint."""
    background = rng.choice([name for name in dataset.BACKGROUNDS if name != sign.background])
    return dataset.render_sign(replace(sign, background=background))


def change_colour(sign: Sign, _: ImageArray, rng: random.Random) -> ImageArray:
    """Draws the sign in another colour."""
    colour = rng.choice([name for name in dataset.COLOURS if name != sign.colour])
    return dataset.render_sign(replace(sign, colour=colour))


def misspell_image(sign: Sign, _: ImageArray, rng: random.Random) -> ImageArray:
    """Draws the sign with one wrong character."""
    return dataset.render_sign(replace(sign, lines=misspell(rng, sign)))


def change_words(sign: Sign, _: ImageArray, rng: random.Random) -> ImageArray:
    """Draws the words of another sign with the same language, size and number of lines."""
    candidates = [
        candidate.lines
        for candidate in dataset.held_out_signs("evaluation")
        if (candidate.language, candidate.size, len(candidate.lines)) == (sign.language, sign.size, len(sign.lines))
        and not set(candidate.lines) & set(sign.lines)
    ]
    return dataset.render_sign(replace(sign, lines=rng.choice(candidates)))


PERTURBATIONS: dict[str, Perturbation] = {
    f"with noise, σ {NOISE_STD:.0f} of 255": add_noise,
    f"as JPEG of quality {JPEG_QUALITY}": compress_jpeg,
    f"{BRIGHTNESS_OFFSET} steps of 255 brighter": brighten,
    "on another wall of the same kind": redraw_background,
    f"blurred, σ {BLUR_STD:.0f}": blur,
    "on a wall of another tint": change_background,
    "in another colour": change_colour,
    "with one wrong letter": misspell_image,
    "with other words": change_words,
}
