from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgepress.common.errors import UserError
from edgepress.evaluate.backends.clip import embedder, preprocessing
from edgepress.evaluate.backends.clip.embedder import cosine_similarity, load_clip
from edgepress.evaluate.images.types import ImageArray
from edgepress.evaluate.metrics import clip_i, clip_t
from edgepress.evaluate.metrics.base import ImageMetric, MetricSettings, PairMetric, UnavailableMetric
from edgepress.prompts.prompt import Prompt

if TYPE_CHECKING:
    from .conftest import TinyClip

PROMPT = Prompt(id="a", prompt="a red wall", language="en")


def test_clip_i_of_identical_images_is_1(tiny_clip: TinyClip, noise: ImageArray) -> None:
    metric = clip_i.create_metric(MetricSettings(clip=f"local-dir:{tiny_clip.folder}"))
    assert isinstance(metric, PairMetric)
    assert metric.against_ground_truth
    assert metric.measure(noise, noise.copy(), PROMPT)["clip_i"] == pytest.approx(1, abs=1e-12)
    value = metric.measure(noise, np.zeros_like(noise), PROMPT)["clip_i"]
    assert value is not None
    assert value < 0.999


def test_version_and_title_contain_the_hash_of_the_weights(tiny_clip: TinyClip) -> None:
    digest = hashlib.sha256((tiny_clip.folder / "open_clip_model.safetensors").read_bytes()).hexdigest()
    for module in (clip_i, clip_t):
        metric = module.create_metric(MetricSettings(clip=f"local-dir:{tiny_clip.folder}"))
        assert not isinstance(metric, UnavailableMetric)
        assert f"someone/small, sha256 {digest}" in metric.version()
        assert f"[someone/small {digest[:8]}]" in metric.scores[0].title


def test_the_version_names_that_of_the_preprocessing(tiny_clip: TinyClip) -> None:
    """Scores of images that were prepared in another way are not compared with these."""
    assert f", preprocessing {preprocessing.VERSION}, " in load_clip(f"local-dir:{tiny_clip.folder}").version


def test_metrics_share_an_embedder_that_embeds_each_image_once(
    tiny_clip: TinyClip, noise: ImageArray, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = load_clip(f"local-dir:{tiny_clip.folder}")
    assert load_clip(f"local-dir:{tiny_clip.folder}") is clip
    embedding = clip.embed_image(noise)
    monkeypatch.setattr(embedder, "load_encoders", lambda _: pytest.fail("loaded again"))
    monkeypatch.setattr(clip, "_encoders", None)
    assert clip.embed_image(noise.copy()) is embedding


def test_clip_t_is_the_similarity_of_image_and_prompt(tiny_clip: TinyClip, noise: ImageArray) -> None:
    spec = f"local-dir:{tiny_clip.folder}"
    metric, clip = clip_t.create_metric(MetricSettings(clip=spec)), load_clip(spec)
    assert isinstance(metric, ImageMetric)
    text_embedding = clip.embed_text(PROMPT.prompt)
    assert text_embedding is not None
    expected = cosine_similarity(clip.embed_image(noise), text_embedding)
    assert metric.measure(noise, PROMPT).values["clip_t"] == expected


def test_prompt_longer_than_the_context_is_not_scored(tiny_clip: TinyClip, noise: ImageArray) -> None:
    metric = clip_t.create_metric(MetricSettings(clip=f"local-dir:{tiny_clip.folder}"))
    assert isinstance(metric, ImageMetric)
    # 32 tokens including start and end
    fitting, too_long = (PROMPT.model_copy(update={"prompt": "A" * length}) for length in (30, 31))
    assert metric.measure(noise, fitting).values["clip_t"] is not None
    values, notes = metric.measure(noise, too_long)
    assert values == {"clip_t": None}
    assert notes == {"clip_t": ("the prompt is longer than the context of this CLIP model",)}


def test_empty_prompt_is_not_scored(tiny_clip: TinyClip, noise: ImageArray) -> None:
    metric = clip_t.create_metric(MetricSettings(clip=f"local-dir:{tiny_clip.folder}"))
    assert isinstance(metric, ImageMetric)
    assert metric.measure(noise, Prompt(id="a", prompt="", language="en")).values == {"clip_t": None}


def test_metrics_are_unavailable_without_weights() -> None:
    for module in (clip_i, clip_t):
        metric = module.create_metric(MetricSettings())
        assert isinstance(metric, UnavailableMetric)
        assert "pass --clip local-dir:FOLDER" in metric.reason


def test_clip_i_needs_no_tokenizer(copied_folder: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (copied_folder / name).unlink()
    settings = MetricSettings(clip=f"local-dir:{copied_folder}")
    assert isinstance(clip_i.create_metric(settings), PairMetric)
    unavailable = clip_t.create_metric(settings)
    assert isinstance(unavailable, UnavailableMetric)
    assert "tokenizer" in unavailable.reason


def test_folder_without_weights_is_an_error(tmp_path: Path) -> None:
    """The metric is not just unavailable, because the user asked for it."""
    with pytest.raises(UserError, match="Give another --clip"):
        clip_i.create_metric(MetricSettings(clip=f"local-dir:{tmp_path}"))
