from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from edgepress.errors import UserError
from edgepress.evaluate.pictures import NAN_MARK, Shot, inspect, open_picture, pictures_in
from edgepress.evaluate.registry import Picture


def test_the_content_counts_and_not_the_file(noise: Picture, tmp_path: Path) -> None:
    for name in ("a.png", "a.bmp", "a.webp"):
        Image.fromarray(noise).save(tmp_path / name, lossless=True)
    shots = [inspect(tmp_path / name) for name in ("a.png", "a.bmp", "a.webp")]
    assert len({shot.digest for shot in shots if isinstance(shot, Shot)}) == 1
    turned = tmp_path / "turned.png"
    Image.fromarray(noise.reshape(48, 64, 3)).save(turned)
    found = inspect(turned)
    assert isinstance(found, Shot)
    assert found.size == "64x48"
    assert found.digest not in {shot.digest for shot in shots if isinstance(shot, Shot)}


@pytest.mark.parametrize("content", [b"", b"\x89PNG", b"text", b"\x89PNG\r\n\x1a\n" + b"\0" * 40])
def test_what_is_no_picture_is_unreadable(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(content)
    assert inspect(tmp_path / "0.png") == "unreadable"
    with pytest.raises(UserError, match=r"0\.png is no readable picture"):
        open_picture(tmp_path / "0.png")


def test_what_is_not_there_is_missing(tmp_path: Path) -> None:
    assert inspect(None) == inspect(tmp_path / "0.png") == "missing"


def test_a_mark_tells_pictures_that_held_nan(noise: Picture, tmp_path: Path) -> None:
    said = PngInfo()
    said.add_text(NAN_MARK, "x")
    Image.fromarray(noise).save(tmp_path / "0.png", pnginfo=said)
    found = inspect(tmp_path / "0.png")
    assert isinstance(found, Shot)
    assert found.defect == "nan"


def test_a_folder_is_read_by_stem(noise: Picture, tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpg", ".hidden.png"):
        Image.fromarray(noise).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no picture")
    assert list(pictures_in(tmp_path)) == ["a", "b"]
    Image.fromarray(noise).save(tmp_path / "a.bmp")
    with pytest.raises(UserError, match=r"holds a\.bmp and a\.jpg"):
        pictures_in(tmp_path)
