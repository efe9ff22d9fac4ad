"""Timings of bench.json files of both versions, and a section computed by hand."""

from __future__ import annotations

import pytest

from edgepress.benchmarks.common.compare_images import TITLES, read_timings, render_body

IMAGES = [
    {"seconds": 9.0, "text_encoder": 9.0, "steps": [9.0, 9.0], "decoder": 9.0},
    {"seconds": 1.0, "text_encoder": 0.1, "steps": [0.2, 0.4], "decoder": 0.3},
    {"seconds": 3.0, "text_encoder": 0.3, "steps": [0.2, 0.8], "decoder": 0.5},
]


@pytest.mark.parametrize(("images", "peak"), [("images", "peak_rss"), ("pictures", "peak")])
def test_the_first_image_does_not_count(images: str, peak: str) -> None:
    content = {images: [image | {peak: 100 * number} for number, image in enumerate(IMAGES, 1)]}
    assert read_timings(content) == pytest.approx(
        {"image": 2, "text encoder": 0.2, "step": 0.3, "mean step": 0.4, "decoder": 0.4, "peak of bench": 300}
    )


def test_ratios_are_those_of_neighbouring_runs() -> None:
    old = [dict.fromkeys(TITLES, value) for value in (1.0, 4.0)]
    new = [dict.fromkeys(TITLES, value) for value in (0.5, 2.0)]
    body = render_body("Images", "Why.", old, new, 16)
    assert "| warm image | 2500 ms | 1250 ms | 0.500 [0.500, 0.500] |" in body
    assert "| cold image, the whole process | 2.5 s | 1.25 s | 0.500" in body
