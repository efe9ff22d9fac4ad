"""Generates one image from an artifact in a process where torch, diffusers and transformers cannot be imported."""

from __future__ import annotations

import sys

UNAVAILABLE = ("torch", "diffusers", "transformers")


def main(artifact: str, prompt: str, side: str, steps: str) -> None:
    for name in UNAVAILABLE:
        sys.modules[name] = None  # type: ignore[assignment]  # importing it raises ModuleNotFoundError

    from ...runtime.pipeline import ImagePipeline

    image = ImagePipeline(artifact, keep_loaded=False)(prompt, seed=0, steps=int(steps), size=(int(side), int(side)))
    colors = image.getcolors(maxcolors=image.width * image.height)
    if colors is None or len(colors) < 2:
        raise ValueError("the image has one color")


if __name__ == "__main__":
    main(*sys.argv[1:])
