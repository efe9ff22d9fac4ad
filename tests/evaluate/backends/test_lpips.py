"""LPIPS compared with its definition in NumPy, with random weights in the layout of the published files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from edgepress.common.errors import UserError
from edgepress.evaluate.backends.lpips import BACKBONE_FILE, HEADS_FILE, LpipsModel
from edgepress.evaluate.images.suitability import UnsuitableImageError
from edgepress.evaluate.images.types import ImageArray
from edgepress.evaluate.metrics.base import MetricSettings, PairMetric, UnavailableMetric
from edgepress.evaluate.metrics.lpips import create_metric
from edgepress.prompts.prompt import Prompt

Array = npt.NDArray[np.float64]
# Convolutions of AlexNet: index in the weight file, kernel size, stride, padding, output channels.
ALEXNET = ((0, 11, 4, 2, 64), (3, 5, 1, 2, 192), (6, 3, 1, 1, 384), (8, 3, 1, 1, 256), (10, 3, 1, 1, 256))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lpips")
    torch.manual_seed(0)
    backbone, heads, inputs = {}, {}, 3
    for layer, (number, kernel, _, _, outputs) in enumerate(ALEXNET):
        backbone[f"features.{number}.weight"] = torch.randn(outputs, inputs, kernel, kernel) / (kernel * inputs**0.5)
        backbone[f"features.{number}.bias"] = 0.1 * torch.randn(outputs)
        heads[f"lin{layer}.model.1.weight"] = torch.rand(1, outputs, 1, 1)
        inputs = outputs
    backbone["classifier.1.weight"] = torch.zeros(3)  # the published file also contains the classifier
    torch.save(backbone, folder / BACKBONE_FILE)
    torch.save(heads, folder / HEADS_FILE)
    return folder


def compute_features(image: ImageArray, weights: dict[str, Any]) -> Iterator[Array]:
    x = (image.transpose(2, 0, 1) / 127.5 - 1 - np.array([-0.030, -0.088, -0.188])[:, None, None]) / np.array(
        [0.458, 0.448, 0.450]
    )[:, None, None]
    for number, _, stride, padding, _ in ALEXNET:
        if number in (3, 6):  # max pooling: 3 x 3 with stride 2
            windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))
            x = windows[:, ::2, ::2].max((-1, -2))
        padded = np.pad(x, ((0, 0), (padding, padding), (padding, padding)))
        kernels = weights[f"features.{number}.weight"].double().numpy()
        windows = np.lib.stride_tricks.sliding_window_view(padded, kernels.shape[2:], axis=(1, 2))
        sums = np.tensordot(kernels, windows[:, ::stride, ::stride], ((1, 2, 3), (0, 3, 4)))
        x = np.maximum(sums + weights[f"features.{number}.bias"].double().numpy()[:, None, None], 0)
        yield x


def distance_by_definition(reference: ImageArray, variant: ImageArray, folder: Path) -> float:
    backbone, heads = torch.load(folder / BACKBONE_FILE), torch.load(folder / HEADS_FILE)
    total = 0.0
    pairs = zip(compute_features(reference, backbone), compute_features(variant, backbone), strict=True)
    for layer, (a, b) in enumerate(pairs):
        a, b = (x / (np.sqrt((x**2).sum(0)) + 1e-10) for x in (a, b))
        total += float((heads[f"lin{layer}.model.1.weight"][0].double().numpy() * (a - b) ** 2).sum(0).mean())
    return total


def test_distance_equals_the_definition(weights: Path) -> None:
    rng = np.random.default_rng(0)
    reference, variant = rng.integers(0, 256, (2, 66, 71, 3), dtype=np.uint8)
    expected = distance_by_definition(reference, variant, weights)
    assert LpipsModel(weights).distance(reference, variant) == pytest.approx(expected, rel=1e-4)
    assert LpipsModel(weights).distance(reference, reference.copy()) == 0


def test_version_of_the_metric_contains_the_hash_of_the_weights(weights: Path, noise: ImageArray) -> None:
    metric = create_metric(MetricSettings(lpips=str(weights)))
    assert isinstance(metric, PairMetric)
    assert "sha256" in metric.version()
    assert metric.measure(noise, noise.copy(), Prompt(id="a", prompt="", language="en")) == {"lpips": 0}


def test_metric_without_weights_is_unavailable() -> None:
    metric = create_metric(MetricSettings())
    assert isinstance(metric, UnavailableMetric)
    assert "--lpips FOLDER" in metric.reason
    assert BACKBONE_FILE in metric.reason


def test_invalid_weight_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"alexnet.* does not exist; pass --lpips FOLDER"):
        LpipsModel(tmp_path)
    (tmp_path / BACKBONE_FILE).write_bytes(b"not weights")
    with pytest.raises(UserError, match="cannot be loaded as weights"):
        LpipsModel(tmp_path)
    torch.save({"features.0.weight": torch.zeros(64, 3, 3, 3)}, tmp_path / BACKBONE_FILE)
    with pytest.raises(UserError, match=r"has no tensor features\.0\.weight of shape"):
        LpipsModel(tmp_path)


def test_image_smaller_than_alexnet_needs_is_unsuitable(weights: Path) -> None:
    model = LpipsModel(weights)
    smallest = np.zeros((31, 31, 3), np.uint8)
    assert model.distance(smallest, smallest) == 0
    for shape in ((30, 64, 3), (64, 30, 3)):
        image = np.zeros(shape, np.uint8)
        with pytest.raises(UnsuitableImageError, match="is smaller than the 31x31 pixels that AlexNet needs"):
            model.distance(image, image)
