"""What the demo's CLIP can tell apart: prompts and pictures that it was not trained on, and two pictures that differ.

`make bench-clip`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest

from ...evaluate.backends.clip.embedder import ClipEmbedder, Embedding, cosine_similarity, load_clip
from ...evaluate.images.image_file import load_image
from ...pipelines.hub import DEMO_CLIP
from ..common.report import render_table, write_section

Trial = Mapping[str, Any]


def embed_prompt(clip: ClipEmbedder, prompt: str) -> Embedding:
    """A prompt's embedding (width,); all of the demo's fit."""
    embedding = clip.embed_text(prompt)
    if embedding is None:
        raise click.ClickException(f"the demo's CLIP does not read the whole prompt {prompt!r}")
    return embedding


def match_nearest(queries: npt.NDArray[np.float64], targets: npt.NDArray[np.float64]) -> list[bool]:
    """Whether each of (n, width) is nearer to the other of its own number than to any other."""
    matches = (queries @ targets.T).argmax(1) == np.arange(len(queries))
    return [bool(value) for value in matches]


def measure_retrieval(clip: ClipEmbedder, signs: Sequence[Trial], folder: Path) -> dict[str, list[bool]]:
    """What finds what, by its words, for every sign."""
    images = np.stack([clip.embed_image(load_image(folder / sign["picture"])) for sign in signs])
    prompts = np.stack([embed_prompt(clip, sign["prompt"]) for sign in signs])
    wrong = [np.stack([embed_prompt(clip, prompt) for prompt in sign["misspelt"]]) for sign in signs]
    spelling = [
        bool(picture @ prompt > (others @ picture).max())
        for picture, prompt, others in zip(images, prompts, wrong, strict=True)
    ]
    return {
        f"a picture's own prompt is the nearest of {len(signs)}": match_nearest(images, prompts),
        f"a prompt's own picture is the nearest of {len(signs)}": match_nearest(prompts, images),
        f"a picture is nearer to its prompt than to {len(wrong[0])} with one wrong letter each": spelling,
    }


def measure_similarity(clip: ClipEmbedder, trial: Trial, folder: Path) -> dict[str, list[float]]:
    """CLIP-I of the first signs' pictures and changed ones, by change."""
    first = [clip.embed_image(load_image(folder / sign["picture"])) for sign in trial["signs"]]
    return {
        name: [
            cosine_similarity(true, clip.embed_image(load_image(folder / file)))
            for true, file in zip(first, files, strict=False)
        ]
        for name, files in trial["changes"].items()
    }


def format_share(hits: Sequence[bool]) -> str:
    """Per cent, and the 95 % interval after Wilson."""
    interval = binomtest(sum(hits), len(hits)).proportion_ci(method="wilson")
    return f"{np.mean(hits):.1%} [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"


def format_range(values: Sequence[float]) -> str:
    low, high = np.quantile(values, [0.05, 0.95])
    return f"{np.mean(values):.3f} [{low:.3f}, {high:.3f}]"


def render_section(hits: Mapping[str, Sequence[bool]], similarities: Mapping[str, Sequence[float]]) -> str:
    """The body of the section in docs/benchmarks.md."""
    signs, pairs = (len(next(iter(ones.values()))) for ones in (hits, similarities))
    changes = [[name, format_range(ones)] for name, ones in similarities.items()]
    return "\n\n".join(
        [
            "## What the demo's CLIP can tell apart",
            f"{signs} true signs of the evaluation set, whose words training never drew; 95 % intervals after Wilson.",
            render_table(["", "share"], [[name, format_share(hits)] for name, hits in hits.items()]),
            f"CLIP-I of two pictures, {pairs} of these signs: mean and the range of nine in ten.",
            render_table(["the second picture is the first one …", "CLIP-I"], changes),
        ]
    )


@click.command(help=__doc__)
def main() -> None:
    clip = load_clip(f"local-dir:{DEMO_CLIP}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run(
            [sys.executable, "-m", "edgepress.benchmarks.evaluation.clip_perturbations", "--output", name], check=True
        )
        trial = json.loads((folder / "trial.json").read_text("utf-8"))
        text = render_section(measure_retrieval(clip, trial["signs"], folder), measure_similarity(clip, trial, folder))
    write_section("clip", "make bench-clip", text)
    click.echo(text)


if __name__ == "__main__":
    main()
