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

from ..evaluate.clip.embed import Clip, Embedding, clip_of, cosine
from ..evaluate.pictures import open_picture
from ..sources import DEMO_CLIP
from .report import table, write_section

Trial = Mapping[str, Any]


def asked(clip: Clip, prompt: str) -> Embedding:
    """A prompt's embedding (width,); all of the demo's fit."""
    embedding = clip.text(prompt)
    if embedding is None:
        raise click.ClickException(f"the demo's CLIP does not read the whole prompt {prompt!r}")
    return embedding


def nearest(ones: npt.NDArray[np.float64], others: npt.NDArray[np.float64]) -> list[bool]:
    """Whether each of (n, width) is nearer to the other of its own number than to any other."""
    found = (ones @ others.T).argmax(1) == np.arange(len(ones))
    return [bool(value) for value in found]


def shares(clip: Clip, told: Sequence[Trial], folder: Path) -> dict[str, list[bool]]:
    """What finds what, by its words, for every sign."""
    pictures = np.stack([clip.picture(open_picture(folder / sign["picture"])) for sign in told])
    prompts = np.stack([asked(clip, sign["prompt"]) for sign in told])
    wrong = [np.stack([asked(clip, prompt) for prompt in sign["misspelt"]]) for sign in told]
    spelt = [
        bool(picture @ prompt > (others @ picture).max())
        for picture, prompt, others in zip(pictures, prompts, wrong, strict=True)
    ]
    return {
        f"a picture's own prompt is the nearest of {len(told)}": nearest(pictures, prompts),
        f"a prompt's own picture is the nearest of {len(told)}": nearest(prompts, pictures),
        f"a picture is nearer to its prompt than to {len(wrong[0])} with one wrong letter each": spelt,
    }


def likenesses(clip: Clip, trial: Trial, folder: Path) -> dict[str, list[float]]:
    """CLIP-I of the first signs' pictures and changed ones, by change."""
    first = [clip.picture(open_picture(folder / sign["picture"])) for sign in trial["signs"]]
    return {
        name: [
            cosine(true, clip.picture(open_picture(folder / file))) for true, file in zip(first, files, strict=False)
        ]
        for name, files in trial["changes"].items()
    }


def share(hits: Sequence[bool]) -> str:
    """Per cent, and the 95 % interval after Wilson."""
    interval = binomtest(sum(hits), len(hits)).proportion_ci(method="wilson")
    return f"{np.mean(hits):.1%} [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"


def spread(values: Sequence[float]) -> str:
    low, high = np.quantile(values, [0.05, 0.95])
    return f"{np.mean(values):.3f} [{low:.3f}, {high:.3f}]"


def body(found: Mapping[str, Sequence[bool]], alike: Mapping[str, Sequence[float]]) -> str:
    """The body of the section in docs/benchmarks.md."""
    signs, pairs = (len(next(iter(ones.values()))) for ones in (found, alike))
    changes = [[name, spread(ones)] for name, ones in alike.items()]
    return "\n\n".join(
        [
            "## What the demo's CLIP can tell apart",
            f"{signs} true signs of the evaluation set, whose words training never drew; 95 % intervals after Wilson.",
            table(["", "share"], [[name, share(hits)] for name, hits in found.items()]),
            f"CLIP-I of two pictures, {pairs} of these signs: mean and the range of nine in ten.",
            table(["the second picture is the first one …", "CLIP-I"], changes),
        ]
    )


@click.command(help=__doc__)
def main() -> None:
    clip = clip_of(f"local-dir:{DEMO_CLIP}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run([sys.executable, "-m", "edgepress.demo.clip_trial", "--output", name], check=True)
        trial = json.loads((folder / "trial.json").read_text("utf-8"))
        text = body(shares(clip, trial["signs"], folder), likenesses(clip, trial, folder))
    write_section("clip", "make bench-clip", text)
    click.echo(text)


if __name__ == "__main__":
    main()
