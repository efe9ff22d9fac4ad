"""What several commands understand alike."""

from __future__ import annotations

import click
import pytest

from edgepress.cli.options import ImageSize


@pytest.mark.parametrize("written", ["512x768", "512X768", "512×768"])
def test_a_size_is_height_and_width(written: str) -> None:
    assert ImageSize().convert(written, None, None) == (512, 768)


BAD = ["", "512", "x512", "512x", "512 x 512", "-16x16", "512x512x3", "1.5x2", "axb", "1x" + 22 * "9"]


@pytest.mark.parametrize("written", BAD)
def test_what_is_no_size_is_told_how_to_write_one(written: str) -> None:
    with pytest.raises(click.BadParameter, match="is no size; write height and width like 512x768"):
        ImageSize().convert(written, None, None)
