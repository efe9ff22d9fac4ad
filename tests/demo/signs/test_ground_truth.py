"""Ground-truth signs: prompts are parsed into signs, and missing fonts have their own exit code."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from edgepress.common.errors import UserError
from edgepress.demo.signs import dataset, ground_truth
from edgepress.demo.signs.dataset import held_out_signs, prompt_set
from edgepress.prompts.prompt import Prompt


def test_every_prompt_of_the_demo_is_parsed() -> None:
    for split in ("calibration", "evaluation"):
        assert [ground_truth.parse_prompt(prompt) for prompt in prompt_set(split)] == held_out_signs(split)


@pytest.mark.parametrize("text", ["a cat", 'a plain white wall, huge red letters, top: "GO"'])
def test_a_prompt_without_a_sign_is_rejected(text: str) -> None:
    with pytest.raises(UserError, match="'x' does not describe a sign of the demo"):
        ground_truth.parse_prompt(Prompt(id="x", prompt=text, language="en", lines=("GO",)))


def test_lines_that_differ_from_the_prompt_are_rejected() -> None:
    prompt = prompt_set("evaluation")[0]
    with pytest.raises(UserError, match="does not describe a sign"):
        ground_truth.parse_prompt(prompt.model_copy(update={"lines": ("OTHER",)}))


def test_missing_fonts_have_their_own_exit_code(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`make evaluate` continues after this exit code, and stops after any other."""
    monkeypatch.chdir(tmp_path)
    fonts = {key: (str(tmp_path / "none.ttf"), points) for key, (_, points) in dataset.FONTS.items()}
    monkeypatch.setattr(dataset, "FONTS", fonts)
    dataset.render_glyph.cache_clear()  # from other tests
    missing = CliRunner().invoke(ground_truth.main, ["--output", "signs"])
    assert missing.exit_code == ground_truth.NO_FONTS_EXIT_CODE
    assert "Drawing signs needs fonts" in missing.output
    Path("other.jsonl").write_text('{"id": "x", "prompt": "a cat", "language": "en"}\n')
    invalid = CliRunner().invoke(ground_truth.main, ["--prompts", "other.jsonl", "--output", "signs"])
    assert invalid.exit_code == 1
