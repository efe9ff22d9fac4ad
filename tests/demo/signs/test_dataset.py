"""The demo's dataset: training signs, and the words and prompts that are held out."""

from __future__ import annotations

import random
from itertools import combinations
from typing import get_args

import pytest

from edgepress.demo.signs import dataset


@pytest.mark.slow
def test_training_signs_contain_no_reserved_word_or_prompt() -> None:
    """20,000 training signs share no word and no prompt with calibration and evaluation."""
    rng = random.Random(0)
    signs = [dataset.draw_sign(rng) for _ in range(20_000)]
    words = {word for sign in signs for word in sign.lines}
    prompts = {sign.prompt for sign in signs}
    assert not words & dataset.held_out_words()
    for split in get_args(dataset.Split):
        assert not prompts & {prompt.prompt for prompt in dataset.prompt_set(split)}


def test_reserved_words_are_never_drawn() -> None:
    """Words are drawn by rejection: in the end, all words of two letters appear, except the reserved ones."""
    rng = random.Random(1)
    drawn = {dataset.draw_word(rng, "en", 2) for _ in range(60_000)}
    short = {word for word in dataset.held_out_words() if len(word) == 2 and word.isascii()}
    assert short
    assert not drawn & short
    assert len(drawn) == 26 + 26 * 26 - len(short)


def test_calibration_and_evaluation_share_no_word_and_no_prompt() -> None:
    calibration, evaluation = (dataset.prompt_set(split) for split in ("calibration", "evaluation"))
    words = [{word for prompt in prompts for word in prompt.lines} for prompts in (calibration, evaluation)]
    assert not words[0] & words[1]
    assert not {prompt.prompt for prompt in calibration} & {prompt.prompt for prompt in evaluation}
    assert not {prompt.id for prompt in calibration} & {prompt.id for prompt in evaluation}


def test_evaluation_has_200_english_and_100_chinese_words() -> None:
    assert len(set(dataset.load_words("evaluation", "en"))) >= 200
    assert len(set(dataset.load_words("evaluation", "zh"))) >= 100
    assert len(dataset.HANZI) == len(set(dataset.HANZI)) >= 20


@pytest.mark.parametrize("split", get_args(dataset.Split))
def test_reserved_words_use_only_trained_characters(split: dataset.Split) -> None:
    assert set("".join(dataset.load_words(split, "en"))) <= set(dataset.LETTERS)
    assert set("".join(dataset.load_words(split, "zh"))) <= set(dataset.HANZI)


def test_characters_fit_and_do_not_overlap() -> None:
    rng = random.Random(2)
    for _ in range(3000):
        sign = dataset.draw_sign(rng)
        cells = sign.cells
        assert len(cells) == len("".join(sign.lines))
        for cell in cells:
            assert cell.column + cell.width <= dataset.GRID
            assert cell.row + cell.height <= dataset.GRID
        for first, second in combinations(cells, 2):
            apart_x = first.column + first.width <= second.column or second.column + second.width <= first.column
            apart_y = first.row + first.height <= second.row or second.row + second.height <= first.row
            assert apart_x or apart_y, sign


def test_the_prompt_describes_the_whole_sign() -> None:
    sign = dataset.Sign(("OPEN", "LATE"), "en", "red", "white", "striped", "large", "top", 0)
    assert sign.prompt == 'a striped white wall, large red letters, top: "OPEN LATE"'
    chinese = dataset.Sign(("花园",), "zh", "teal", "grey", "dotted", "small", "bottom", 1)
    assert chinese.prompt == "在圆点灰底下方写青色小字：“花园”"
