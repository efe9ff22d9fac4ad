from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgepress.common.errors import UserError
from edgepress.evaluate.backends.clip import embedder
from edgepress.evaluate.backends.clip.embedder import cosine_similarity, load_clip
from edgepress.evaluate.images.types import ImageArray
from edgepress.evaluate.metrics import clip_i, clip_t
from edgepress.evaluate.metrics.base import ImageMetric, MetricSettings, PairMetric, UnavailableMetric
from edgepress.prompts.prompt import Prompt

if TYPE_CHECKING:
    from .conftest import Plain

PROMPT = Prompt(id="a", prompt="a red wall", language="en")


def test_a_picture_is_as_near_to_itself_as_can_be(plain: Plain, noise: ImageArray) -> None:
    metric = clip_i.create_metric(MetricSettings(clip=f"local-dir:{plain.folder}"))
    assert isinstance(metric, PairMetric)
    assert metric.against_ground_truth
    assert metric.measure(noise, noise.copy(), PROMPT)["clip_i"] == pytest.approx(1, abs=1e-12)
    other = metric.measure(noise, np.zeros_like(noise), PROMPT)["clip_i"]
    assert other is not None
    assert other < 0.999


def test_the_id_holds_the_weights_digest(plain: Plain) -> None:
    digest = hashlib.sha256((plain.folder / "open_clip_model.safetensors").read_bytes()).hexdigest()
    for module in (clip_i, clip_t):
        metric = module.make(MetricSettings(clip=f"local-dir:{plain.folder}"))
        assert not isinstance(metric, UnavailableMetric)
        assert f"someone/small, sha256 {digest}" in metric.version()
        assert f"[someone/small {digest[:8]}]" in metric.scores[0].title


def test_both_metrics_share_one_clip_that_embeds_a_picture_once(
    plain: Plain, noise: ImageArray, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = load_clip(f"local-dir:{plain.folder}")
    assert load_clip(f"local-dir:{plain.folder}") is clip
    first = clip.embed_image(noise)
    monkeypatch.setattr(embedder, "load", lambda _: pytest.fail("loaded again"))
    monkeypatch.setattr(clip, "_towers", None)
    assert clip.embed_image(noise.copy()) is first


def test_clip_t_is_the_cosine_of_picture_and_prompt(plain: Plain, noise: ImageArray) -> None:
    spec = f"local-dir:{plain.folder}"
    metric, clip = clip_t.create_metric(MetricSettings(clip=spec)), load_clip(spec)
    assert isinstance(metric, ImageMetric)
    text = clip.embed_text(PROMPT.prompt)
    assert text is not None
    assert metric.measure(noise, PROMPT).values["clip_t"] == cosine_similarity(clip.embed_image(noise), text)


def test_a_prompt_that_would_be_cut_is_left_out_and_said_to_be(plain: Plain, noise: ImageArray) -> None:
    metric = clip_t.create_metric(MetricSettings(clip=f"local-dir:{plain.folder}"))
    assert isinstance(metric, ImageMetric)
    fits, cut = (PROMPT.model_copy(update={"prompt": "A" * count}) for count in (30, 31))  # and a start and an end
    assert metric.measure(noise, fits).values["clip_t"] is not None
    values, notes = metric.measure(noise, cut)
    assert values == {"clip_t": None}
    assert notes == {"clip_t": ("the prompt is longer than this CLIP reads",)}


def test_without_a_prompt_there_is_nothing_to_compare(plain: Plain, noise: ImageArray) -> None:
    metric = clip_t.create_metric(MetricSettings(clip=f"local-dir:{plain.folder}"))
    assert isinstance(metric, ImageMetric)
    assert metric.measure(noise, Prompt(id="a", prompt="", language="en")).values == {"clip_t": None}


def test_without_weights_neither_is_measured() -> None:
    for module in (clip_i, clip_t):
        metric = module.make(MetricSettings())
        assert isinstance(metric, UnavailableMetric)
        assert "pass --clip local-dir:FOLDER" in metric.reason


def test_without_a_tokenizer_pictures_are_compared_all_the_same(changed: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (changed / name).unlink()
    settings = MetricSettings(clip=f"local-dir:{changed}")
    assert isinstance(clip_i.create_metric(settings), PairMetric)
    missing = clip_t.create_metric(settings)
    assert isinstance(missing, UnavailableMetric)
    assert "tokenizer" in missing.reason


def test_weights_that_were_named_and_are_wrong_are_an_error(tmp_path: Path) -> None:
    """Not something that is left unmeasured."""
    with pytest.raises(UserError, match="random ones are never used"):
        clip_i.create_metric(MetricSettings(clip=f"local-dir:{tmp_path}"))
