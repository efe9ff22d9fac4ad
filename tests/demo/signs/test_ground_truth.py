from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from edgepress.common.errors import UserError
from edgepress.demo.signs import dataset, ground_truth
from edgepress.demo.signs.dataset import held_out_signs, prompt_set
from edgepress.prompts.prompt import Prompt

DATA = Path(__file__).parents[2] / "evaluate" / "data"  # true signs, drawn once


def test_every_prompt_of_the_demo_says_which_sign_it_means() -> None:
    for split in ("calibration", "evaluation"):
        assert [ground_truth.parse_prompt(prompt) for prompt in prompt_set(split)] == held_out_signs(split)


@pytest.mark.parametrize("text", ["a cat", 'a plain white wall, huge red letters, top: "GO"'])
def test_another_prompt_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="'x' asks for no sign of the demo"):
        ground_truth.parse_prompt(Prompt(id="x", prompt=text, language="en", lines=("GO",)))


def test_other_lines_than_the_prompts_are_refused() -> None:
    prompt = prompt_set("evaluation")[0]
    with pytest.raises(UserError, match="asks for no sign"):
        ground_truth.parse_prompt(prompt.model_copy(update={"lines": ("OTHER",)}))


def test_without_fonts_the_command_ends_so_that_make_can_tell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Any other failure has another exit code, and stops `make evaluate`."""
    monkeypatch.chdir(tmp_path)
    lacking = {key: (str(tmp_path / "none.ttf"), points) for key, (_, points) in dataset.FONTS.items()}
    monkeypatch.setattr(dataset, "FONTS", lacking)
    dataset.render_glyph.cache_clear()  # of what other tests drew
    without = CliRunner().invoke(ground_truth.main, ["--output", "signs"])
    assert (without.exit_code, "The true signs need fonts" in without.output) == (ground_truth.NO_FONTS_EXIT_CODE, True)
    Path("other.jsonl").write_text('{"id": "x", "prompt": "a cat", "language": "en"}\n')
    other = CliRunner().invoke(ground_truth.main, ["--prompts", "other.jsonl", "--output", "signs"])
    assert other.exit_code == 1
