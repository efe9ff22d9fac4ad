from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from edgepress.demo import signs, truth
from edgepress.demo.signs import held_out_signs, prompt_set
from edgepress.errors import UserError
from edgepress.prompts import Prompt

DATA = Path(__file__).parents[1] / "evaluate" / "data"  # true signs, drawn once


def test_every_prompt_of_the_demo_says_which_sign_it_means() -> None:
    for split in ("calibration", "evaluation"):
        assert [truth.sign_of(prompt) for prompt in prompt_set(split)] == held_out_signs(split)


@pytest.mark.parametrize("text", ["a cat", 'a plain white wall, huge red letters, top: "GO"'])
def test_another_prompt_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="'x' asks for no sign of the demo"):
        truth.sign_of(Prompt(id="x", prompt=text, language="en", lines=("GO",)))


def test_other_lines_than_the_prompts_are_refused() -> None:
    prompt = prompt_set("evaluation")[0]
    with pytest.raises(UserError, match="asks for no sign"):
        truth.sign_of(prompt.model_copy(update={"lines": ("OTHER",)}))


def test_without_fonts_the_command_ends_so_that_make_can_tell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Any other failure has another exit code, and stops `make evaluate`."""
    monkeypatch.chdir(tmp_path)
    lacking = {key: (str(tmp_path / "none.ttf"), points) for key, (_, points) in signs.FONTS.items()}
    monkeypatch.setattr(signs, "FONTS", lacking)
    signs.glyph.cache_clear()  # of what other tests drew
    without = CliRunner().invoke(truth.main, ["--output", "signs"])
    assert (without.exit_code, "The true signs need fonts" in without.output) == (truth.NO_FONTS, True)
    Path("other.jsonl").write_text('{"id": "x", "prompt": "a cat", "language": "en"}\n')
    other = CliRunner().invoke(truth.main, ["--prompts", "other.jsonl", "--output", "signs"])
    assert other.exit_code == 1
