"""What ONNX Runtime computes differently on some processors is said where graphs are opened."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.small_artifact import write_small_artifact

from edgepress.common.cpu_features import CpuFeatures
from edgepress.runtime.onnx import arithmetic
from edgepress.runtime.pipeline import ImagePipeline
from edgepress.storage.files import read_json_object, write_json

A76, A72 = "asimd asimddp asimdhp", "asimd"


@pytest.mark.parametrize(
    ("architecture", "flags", "settings", "sentence"),
    [
        ("aarch64", A76, {"precision": "fp16"}, "These float16 graphs run on a processor that sums float16 products"),
        ("aarch64", A76, {"precision": "int4", "float_dtype": "fp16"}, "These float16 graphs run on a processor"),
        ("aarch64", A76, {"precision": "fp32"}, ""),
        ("aarch64", A72, {"precision": "fp16"}, ""),  # which computes them in float32
        ("x86_64", "avx2", {"precision": "fp16"}, ""),
    ],
)
def test_float16_sums_are_named_when_graphs_are_opened(
    architecture: str,
    flags: str,
    settings: dict[str, str],
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "onnx").mkdir()
    write_small_artifact(tmp_path)
    config = tmp_path / "onnx" / "pipeline.json"
    write_json(read_json_object(config) | settings, config)
    features = CpuFeatures(architecture, frozenset(flags.split()))
    monkeypatch.setattr(arithmetic, "read_cpu_features", lambda: features)
    ImagePipeline(tmp_path, providers="cpu")
    assert ("float16" in caplog.text) is bool(sentence)
    assert sentence in caplog.text


def test_what_a_gpu_leaves_to_the_processor_is_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(arithmetic, "read_cpu_features", lambda: CpuFeatures("aarch64", frozenset(A76.split())))
    arithmetic.warn_about_fp16_sums(runs_on_cpu=False)
    assert caplog.messages[0].startswith("What the GPU leaves of these float16 graphs runs on a processor that sums")
