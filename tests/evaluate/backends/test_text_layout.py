"""Text counts as read only if it lies as the prompt asks: upright unless it says otherwise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgepress.evaluate.backends.ocr import read_again
from edgepress.evaluate.backends.text_layout import read_text
from edgepress.evaluate.images.image_file import load_image
from edgepress.evaluate.images.suitability import UnsuitableImageError
from edgepress.evaluate.images.types import ImageArray
from edgepress.prompts.prompt import Language, Prompt

WORDS_SHEET = Path(__file__).parents[1] / "data" / "words.png"  # see test_ocr.py: strips of 512 x 176 with a word each
WELCOME, WELCOME_ZH, NORTH_STATION = 5, 36, 42  # strips with Welcome, 欢迎光临 and 北京西站


def load_strip(number: int) -> ImageArray:
    sheet = np.asarray(Image.open(WORDS_SHEET).convert("RGB"))
    return sheet[176 * number : 176 * (number + 1)]


def crop_ink(image: ImageArray) -> ImageArray:
    """Returns the smallest rectangle with everything that is not white."""
    rows, columns = ((image.min(2) < 128).any(axis) for axis in (1, 0))
    (top, bottom), (left, right) = (np.flatnonzero(part)[[0, -1]] for part in (rows, columns))
    return image[top : bottom + 1, left : right + 1]


def make_prompt(*lines: str, language: Language = "en", **layout: object) -> Prompt:
    return Prompt.model_validate({"id": "a", "prompt": "x", "language": language, "lines": lines, **layout})


def square(image: ImageArray, side: int = 256) -> ImageArray:
    """Puts an image in the middle of a white square."""
    canvas = Image.new("RGB", (side, side), "white")
    shown = Image.fromarray(np.ascontiguousarray(image))
    shown.thumbnail((side - 40, side - 40))
    canvas.paste(shown, ((side - shown.width) // 2, (side - shown.height) // 2))
    return np.asarray(canvas)


def stack_characters(line: ImageArray, count: int) -> ImageArray:
    """Stacks the characters of a line, which are equally wide, from top to bottom."""
    return np.vstack([np.pad(part, ((8, 8), (0, 0), (0, 0)), constant_values=255) for part in np.split(line, count, 1)])


@pytest.mark.slow
@pytest.mark.parametrize("turns", [1, 2, 3])
def test_turned_text_does_not_count_and_the_reason_is_known(turns: int, signs: list[tuple[Prompt, Path]]) -> None:
    prompt, file = signs[0]  # FRESH, which OCR reads on its head as well
    image = np.rot90(load_image(file), -turns)
    reading = read_text(image, prompt)
    assert reading.lines == ()
    assert reading.remarks == (f"read, but turned by {90 * turns}°: FRESH",)
    assert [box.angle for box in reading.boxes] == [pytest.approx(90 * turns, abs=3)]


@pytest.mark.slow
def test_turned_text_counts_if_the_prompt_asks_for_it(signs: list[tuple[Prompt, Path]]) -> None:
    prompt, file = signs[0]
    for turns in (1, 2):
        turned = prompt.model_copy(update={"angle": 90 * turns})
        reading = read_text(np.rot90(load_image(file), -turns), turned)
        assert (reading.lines, reading.remarks) == (("FRESH",), ())
        assert reading.boxes[0].angle == pytest.approx(90 * turns, abs=3)
    upright = read_text(load_image(file), turned)
    assert upright.lines == ()


@pytest.mark.slow
def test_mirrored_text_does_not_count(signs: list[tuple[Prompt, Path]]) -> None:
    """OCR reads mirrored Chinese characters; only their order is wrong, which is not scored."""
    for prompt, file in (signs[0], signs[2]):
        reading = read_text(load_image(file)[:, ::-1], prompt)
        assert reading.lines == ()
        assert reading.remarks == (f"read, but mirrored: {prompt.lines[0]}",)


@pytest.mark.slow
@pytest.mark.parametrize(("strip", "text"), [(WELCOME_ZH, "欢迎光临"), (NORTH_STATION, "北京西站")])
def test_vertical_chinese_counts_and_a_turned_line_does_not(strip: int, text: str) -> None:
    line = crop_ink(load_strip(strip))
    line = line[:, : len(text) * (line.shape[1] // len(text))]
    prompt = make_prompt(text, language="zh")
    assert read_text(square(stack_characters(line, len(text))), prompt).lines == (text,)
    turned = read_text(square(np.rot90(line, -1)), prompt)
    assert (turned.lines, turned.remarks) == ((), (f"read, but turned by 90°: {text}",))


@pytest.mark.slow
def test_place_and_height_count_where_the_prompt_states_them() -> None:
    image = np.full((256, 256, 3), 255, np.uint8)
    image[20:80, 20:220] = np.asarray(Image.fromarray(load_strip(WELCOME)).resize((200, 60)))
    for layout, remark in (
        ({"region": (0, 0, 1, 0.5), "text_height": (0.1, 0.3)}, None),
        ({"region": (0, 0.5, 1, 1)}, "read, but outside of the region asked for: Welcome"),
        ({"text_height": (0.5, 0.9)}, "read, but smaller than asked for: Welcome"),
        ({"text_height": (0, 0.05)}, "read, but larger than asked for: Welcome"),
    ):
        reading = read_text(image, make_prompt("Welcome", **layout))
        assert reading.remarks == (() if remark is None else (remark,))
        assert reading.lines == (("Welcome",) if remark is None else ())


@pytest.mark.slow
def test_region_is_that_of_the_image_as_it_lies() -> None:
    image = np.full((256, 256, 3), 255, np.uint8)
    image[20:80, 20:220] = np.asarray(Image.fromarray(load_strip(WELCOME)).resize((200, 60)))
    turned = np.rot90(image, -1)  # the text is on the right and runs downwards
    reading = read_text(turned, make_prompt("Welcome", angle=90, region=(0.5, 0, 1, 1)))
    assert (reading.lines, reading.remarks) == (("Welcome",), ())
    box = reading.boxes[0]
    assert (box.left > 160, box.right < 256, box.bottom - box.top > 100) == (True, True, True)


@pytest.mark.slow
def test_text_that_occurs_twice_is_remarked() -> None:
    word = np.asarray(Image.fromarray(load_strip(WELCOME)).resize((240, 82)))
    reading = read_text(square(np.vstack([word, word])), make_prompt("Welcome"))
    assert reading.lines == ("Welcome", "Welcome")
    assert reading.remarks == ("read 2 times, not 1: Welcome",)


@pytest.mark.slow
def test_short_word_in_a_large_image_is_read_at_a_second_scale() -> None:
    image = np.full((1024, 1024, 3), 235, np.uint8)
    word = crop_ink(load_strip(WELCOME))
    small = np.asarray(Image.fromarray(word).resize((60, 15), Image.Resampling.LANCZOS))
    image[500:515, 480:540] = np.minimum(small, 235)
    reading = read_text(image, make_prompt("Welcome"))
    assert reading.lines == ("Welcome",)
    assert reading.boxes[0].center == pytest.approx((510, 507), abs=6)


@pytest.mark.slow
@pytest.mark.parametrize("letters", [20, 40])
def test_banner_is_read_in_pieces(letters: int) -> None:
    banner = np.full((64, 896, 3), 235, np.uint8)
    word = Image.fromarray(crop_ink(load_strip(WELCOME))).resize((4 * letters, letters), Image.Resampling.LANCZOS)
    top, left = 32 - letters // 2, 448 - 2 * letters
    banner[top : top + letters, left : left + 4 * letters] = np.minimum(np.asarray(word), 235)
    (boxes,) = read_again(banner)
    assert [box.text for box in boxes] == ["Welcome"]
    assert boxes[0].center == pytest.approx((448, 32), abs=6)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(1, 1), (8, 8)])
def test_tiny_images_have_no_text(shape: tuple[int, int]) -> None:
    assert read_text(np.zeros((*shape, 3), np.uint8), make_prompt("OPEN")).lines == ()


def test_elongated_images_are_unsuitable() -> None:
    with pytest.raises(UnsuitableImageError, match="of 5000x8 pixels is more than 50 times as long as wide, and OCR"):
        read_text(np.zeros((8, 5000, 3), np.uint8), make_prompt("OPEN"))
