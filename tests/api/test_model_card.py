"""What cards of models say of the original."""

from __future__ import annotations

import pytest

from edgepress.api.model_card import describe_relation


@pytest.mark.parametrize("source", ["", "demo", "./demo", "/models", "~/model", "a/b/c", "../demo"])
def test_a_folder_is_no_base_model(source: str) -> None:
    assert describe_relation(source) == {}


def test_a_repository_on_the_hub_is_the_base_model() -> None:
    assert describe_relation("owner/name") == {"base_model": "owner/name", "base_model_relation": "quantized"}
