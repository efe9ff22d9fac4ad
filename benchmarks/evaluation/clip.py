"""Measures what the demo's CLIP can tell apart: held-out images and prompts, and images that differ slightly.

Run by `make bench-clip`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import click
import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest

from ...common.markdown_table import render_table
from ...evaluate.backends.clip.embedder import ClipEmbedder, Embedding, cosine_similarity, load_clip
from ...pipelines.hub import DEMO_CLIP
from ..common.report import write_section
from .clip_perturbations import PERTURBATIONS, SignSample, make_samples


def embed_prompt(clip: ClipEmbedder, prompt: str) -> Embedding:
    """Returns the embedding of a prompt, shape (width,).

    Raises:
        ClickException: The prompt is longer than CLIP's context. No prompt of the demo is.
    """
    embedding = clip.embed_text(prompt)
    if embedding is None:
        raise click.ClickException(f"The prompt does not fit the context of the demo's CLIP: {prompt!r}")
    return embedding


def match_nearest(queries: npt.NDArray[np.float64], targets: npt.NDArray[np.float64]) -> list[bool]:
    """Returns, for every row of the queries (n, width), whether its nearest target is in the same row."""
    matches: list[bool] = ((queries @ targets.T).argmax(1) == np.arange(len(queries))).tolist()
    return matches


def measure_retrieval(clip: ClipEmbedder, samples: Sequence[SignSample]) -> dict[str, list[bool]]:
    """Returns, for every question, whether each sign is answered correctly."""
    images = np.stack([clip.embed_image(sample.image) for sample in samples])
    prompts = np.stack([embed_prompt(clip, sample.prompt) for sample in samples])
    misspelled = [np.stack([embed_prompt(clip, prompt) for prompt in sample.misspelled_prompts]) for sample in samples]
    spelling = [
        bool(image @ prompt > (wrong @ image).max())
        for image, prompt, wrong in zip(images, prompts, misspelled, strict=True)
    ]
    return {
        f"an image's own prompt is the nearest of {len(samples)}": match_nearest(images, prompts),
        f"a prompt's own image is the nearest of {len(samples)}": match_nearest(prompts, images),
        f"an image is nearer to its prompt than to {len(misspelled[0])} with one wrong letter each": spelling,
    }


def measure_similarity(clip: ClipEmbedder, samples: Sequence[SignSample]) -> dict[str, list[float]]:
    """Returns CLIP-I between the original and the perturbed images, by perturbation."""
    return {
        name: [
            cosine_similarity(clip.embed_image(sample.image), clip.embed_image(sample.perturbed_images[name]))
            for sample in samples
            if sample.perturbed_images
        ]
        for name in PERTURBATIONS
    }


def format_share(hits: Sequence[bool]) -> str:
    """Formats a share in per cent with its 95 % Wilson interval."""
    interval = binomtest(sum(hits), len(hits)).proportion_ci(method="wilson")
    return f"{np.mean(hits):.1%} [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"


def format_range(values: Sequence[float]) -> str:
    """Formats a mean with the central 90 % range."""
    low, high = np.quantile(values, [0.05, 0.95])
    return f"{np.mean(values):.3f} [{low:.3f}, {high:.3f}]"


def render_section(retrieval: Mapping[str, Sequence[bool]], similarities: Mapping[str, Sequence[float]]) -> str:
    """Returns the section of docs/benchmarks/clip.md."""
    num_signs, num_pairs = (len(next(iter(values.values()))) for values in (retrieval, similarities))
    return "\n\n".join(
        [
            "## What the demo's CLIP can tell apart",
            f"{num_signs} ground-truth signs of the evaluation set, with words that training never used. "
            "95 % Wilson intervals.",
            render_table(["", "share"], [[question, format_share(hits)] for question, hits in retrieval.items()]),
            f"CLIP-I between two images of {num_pairs} of these signs: mean and central 90 % range.",
            render_table(
                ["the second image is the first one …", "CLIP-I"],
                [[name, format_range(values)] for name, values in similarities.items()],
            ),
        ]
    )


@click.command(help=__doc__)
def main() -> None:
    clip, samples = load_clip(f"local-dir:{DEMO_CLIP}"), make_samples()
    body = render_section(measure_retrieval(clip, samples), measure_similarity(clip, samples))
    write_section("clip", "make bench-clip", body)
    click.echo(body)


if __name__ == "__main__":
    main()
