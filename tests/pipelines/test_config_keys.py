"""Keys of configs that their classes ignore: named, with what was probably meant; true configs pass in silence."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import diffusers
import pytest
from diffusers import AutoencoderKL

from edgepress.pipelines.config_keys import warn_about_unknown_keys
from edgepress.pipelines.hub import DEMO_PIPELINE


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    """The configs of the demo, without weights."""
    return Path(shutil.copytree(DEMO_PIPELINE, tmp_path / "pipeline", ignore=shutil.ignore_patterns("*.safetensors")))


def add(file: Path, **keys: Any) -> None:
    content = json.loads(file.read_text("utf-8")) | keys
    file.write_text(json.dumps({key: value for key, value in content.items() if value is not None}), "utf-8")


def test_the_configs_of_the_demo_have_no_unknown_key(pipeline: Path, caplog: pytest.LogCaptureFixture) -> None:
    warn_about_unknown_keys(pipeline)
    assert not caplog.records


@pytest.mark.parametrize(
    ("file", "keys", "message"),
    [
        ("scheduler/scheduler_config.json", {"shift": None, "shfit": 3}, "the key 'shfit'; did you mean 'shift'?"),
        ("transformer/config.json", {"n_heads": None, "n_hedas": 2}, "'n_hedas'; did you mean 'n_heads'?"),
        ("vae/config.json", {"force_upcast": None, "force_upcat": True}, "'force_upcat'; did you mean 'force_upcast'?"),
        ("vae/config.json", {"wings": 2}, "an AutoencoderKL ignores the key 'wings'. Remove it."),
        ("text_encoder/config.json", {"rms_norm_eps": None, "rms_norm_epz": 1}, "did you mean 'rms_norm_eps'?"),
        ("text_encoder/config.json", {"wings": 2}, ""),
        ("vae/config.json", {"quantization_config": {}, "_note": "mine"}, ""),
    ],
)  # fmt: skip
def test_unknown_keys_are_named_once(
    pipeline: Path, caplog: pytest.LogCaptureFixture, file: str, keys: dict[str, Any], message: str
) -> None:
    add(pipeline / file, **keys)
    warn_about_unknown_keys(pipeline)
    assert [record.getMessage().startswith(f"{pipeline / file}: ") for record in caplog.records] == [True] * bool(
        message
    )
    assert message in caplog.text


def test_the_library_does_not_say_it_again(pipeline: Path, caplog: pytest.LogCaptureFixture) -> None:
    add(pipeline / "vae" / "config.json", wings=2)
    warn_about_unknown_keys(pipeline)
    caplog.clear()
    logging.getLogger("diffusers").propagate = True
    try:
        AutoencoderKL.from_config(AutoencoderKL.load_config(pipeline / "vae"))
    finally:
        logging.getLogger("diffusers").propagate = False
    assert not caplog.records


@pytest.mark.parametrize("scheduler", ["DDIMScheduler", "EulerDiscreteScheduler", "FlowMatchEulerDiscreteScheduler"])
def test_options_of_compatible_schedulers_are_no_mistakes(
    pipeline: Path, caplog: pytest.LogCaptureFixture, scheduler: str
) -> None:
    """A pipeline that was saved with one scheduler is often published with another, which ignores some options."""
    folder = pipeline / "scheduler"
    getattr(diffusers, scheduler)().save_pretrained(folder)
    named = "EulerDiscreteScheduler" if scheduler == "DDIMScheduler" else scheduler
    add(pipeline / "model_index.json", scheduler=["diffusers", named])
    warn_about_unknown_keys(pipeline)
    assert not caplog.records
