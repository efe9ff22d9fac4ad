from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgepress.common.threads import map_threads
from edgepress.evaluate.backends.ocr import TextBox, group_into_lines, recognize_lines, upscale
from edgepress.evaluate.backends.ocr_engine import get_version
from edgepress.evaluate.images.image_file import load_image
from edgepress.prompts.prompt import Language, Prompt

# The content of data/words.png, one word per strip, drawn with Pillow in DejaVu Sans Bold and Noto Sans CJK Bold.
STRIP_HEIGHT = 176  # pixels; the width is 512
WORDS: dict[Language, str] = {
    "en": """MORNING Harbour CRUST Lantern OPEN Welcome Pharmacy STATION Library Garden Ticket FRAGILE Museum Kitchen
        RIVER Orchard Weekend BOARDING Printer Spoon Village Thunder Quiet SUMMIT Blanket Pepper Signal Winter MARKET
        Violin Chapter Bridge Yellow Journey Comet Puzzle""",
    "zh": """欢迎光临 营业中 图书馆 小心地滑 早餐 星期四 北京西站 易碎品 出口 请勿停车 花店 人民公园 安静 火车票
        今日特价 书法 高山流水 药房 欢乐谷 停车场 美术馆 天气预报 新年快乐 茶楼 电影院 推门请进 医院 咖啡 雨伞 银行
        服务台 菜单 热干面 校长室 洗手间 春夏秋冬""",
}


@pytest.mark.slow
def test_correct_signs_are_recognized(signs: list[tuple[Prompt, Path]]) -> None:
    for prompt, file in signs:
        letters = ["".join(line.split()) for line in recognize_lines(load_image(file))]
        assert letters == list(prompt.lines)


def draw_words(numbers: Sequence[int], size: int) -> Image.Image:
    """Returns an image of up to two words, one above the other on a white square."""
    sheet = Image.open(Path(__file__).parents[1] / "data" / "words.png").convert("RGB")
    square = Image.new("RGB", (512, 512), "white")
    gap = (512 - STRIP_HEIGHT * len(numbers)) // (len(numbers) + 1)
    for row, number in enumerate(numbers):
        strip = sheet.crop((0, STRIP_HEIGHT * number, 512, STRIP_HEIGHT * (number + 1)))
        square.paste(strip, (0, gap + row * (STRIP_HEIGHT + gap)))
    return square.resize((size, size), Image.Resampling.BOX)


@pytest.mark.slow
@pytest.mark.parametrize("size", [128, 256, 512])
@pytest.mark.parametrize("language", ["en", "zh"])
def test_97_percent_of_rendered_words_are_recognized_from_128_pixels(language: Language, size: int) -> None:
    """Words must match exactly, without normalization. Two share an image, since finding text takes longest."""
    first, words = (0 if language == "en" else len(WORDS["en"].split())), WORDS[language].split()
    pairs = [(words[start : start + 2], range(first + start, first + start + 2)) for start in range(0, len(words), 2)]
    images = [np.asarray(draw_words(numbers, size)) for _, numbers in pairs]
    wrong = []
    for (pair, _), lines in zip(pairs, map_threads(recognize_lines, images), strict=True):
        wrong += [(word, lines) for word in pair if word not in lines]
    assert len(wrong) <= 0.03 * len(words), wrong


@pytest.mark.slow
def test_blank_image_has_no_lines() -> None:
    assert recognize_lines(np.full((128, 128, 3), 230, np.uint8)) == []


def test_boxes_are_joined_left_to_right_and_lines_sorted_top_to_bottom() -> None:
    boxes = [
        TextBox(50, 32, 90, 62, "VOW"),
        TextBox(60, 2, 90, 30, "OOD"),
        TextBox(0, 0, 40, 28, "G"),
        TextBox(0, 30, 40, 60, "A"),
    ]
    assert group_into_lines(boxes) == ["G OOD", "A VOW"]


def test_boxes_that_overlap_slightly_are_two_lines() -> None:
    assert group_into_lines([TextBox(0, 210, 511, 511, "安家"), TextBox(0, 0, 511, 301, "园春")]) == ["园春", "安家"]


def test_no_boxes_make_no_lines() -> None:
    assert group_into_lines([]) == []


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((128, 128), (512, 512)), ((100, 400), (512, 2048)), ((512, 700), (512, 700)), ((1024, 768), (1024, 768))],
)
def test_small_images_are_upscaled(shape: tuple[int, int], expected: tuple[int, int]) -> None:
    assert upscale(np.zeros((*shape, 3), np.uint8)).shape == (*expected, 3)


def test_version_contains_the_engine() -> None:
    assert get_version().startswith("rapidocr 3.")
