"""Images that record another prompt than that of their names."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from PIL import Image

from edgepress.common.errors import UserError
from edgepress.evaluate.checks import check_plan
from edgepress.evaluate.images.recorded_prompts import check_recorded_prompts, read_recorded_prompts
from edgepress.evaluate.plan import EvaluationOptions, plan_image_pairs
from edgepress.prompts.prompt import Prompt, save_prompts
from edgepress.recipes.loader import load_recipe
from edgepress.runtime.image_metadata import ImageOrigin, build_save_options, hash_prompt

HASHES = {name: hash_prompt(f"a sign {name}") for name in ("one", "two")}


def save(folder: Path, name: str, prompt: str) -> None:
    folder.mkdir(exist_ok=True)
    origin = ImageOrigin(prompt, seed=1, steps=2, model="APipeline")
    Image.new("RGB", (8, 8)).save(folder / f"{name}.png", **build_save_options("PNG", origin))


def test_images_of_their_prompts_and_images_without_a_record_pass(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save(tmp_path, "one", "a sign one")
    Image.new("RGB", (8, 8)).save(tmp_path / "two.png")
    (tmp_path / "three.png").write_bytes(b"PNG")
    assert read_recorded_prompts(tmp_path) == {"one": HASHES["one"]}
    check_recorded_prompts(tmp_path, HASHES)
    assert not caplog.records


def test_exchanged_images_are_named(tmp_path: Path) -> None:
    save(tmp_path, "one", "a sign two")
    save(tmp_path, "two", "a sign one")
    with pytest.raises(UserError, match=r"2 images in .*: one is the image of two, two is the image of one\. Rename"):
        check_recorded_prompts(tmp_path, HASHES)


def test_images_of_unknown_prompts_are_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save(tmp_path, "two", "something else")
    with caplog.at_level(logging.WARNING):
        check_recorded_prompts(tmp_path, HASHES)
    assert "1 images in" in caplog.text
    assert caplog.text.rstrip().endswith(": two.")


@pytest.mark.parametrize("has_prompts", [False, True])
def test_an_evaluation_refuses_them_before_any_work(
    tmp_path: Path, has_prompts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder, names in (("reference", ("one", "two")), ("variant", ("two", "one"))):
        for name, prompt in zip(("one", "two"), names, strict=True):
            save(tmp_path / folder, name, f"a sign {prompt}")
    save_prompts([Prompt(id=name, prompt=f"a sign {name}", language="en") for name in HASHES], tmp_path / "set.jsonl")
    options = EvaluationOptions(prompts=str(tmp_path / "set.jsonl")) if has_prompts else EvaluationOptions()
    plan = plan_image_pairs(load_recipe("orin"), tmp_path / "reference", tmp_path / "variant", options)
    with pytest.raises(UserError, match="one is the image of two"):
        check_plan(plan)


def test_exchanged_images_of_a_ground_truth_are_refused_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, prompt in (("one", "two"), ("two", "one")):
        save(tmp_path / "reference", name, f"a sign {name}")
        save(tmp_path / "truth", name, f"a sign {prompt}")
    save_prompts([Prompt(id=name, prompt=f"a sign {name}", language="en") for name in HASHES], tmp_path / "set.jsonl")
    options = EvaluationOptions(prompts=str(tmp_path / "set.jsonl"), ground_truth=tmp_path / "truth")
    plan = plan_image_pairs(load_recipe("orin"), tmp_path / "reference", tmp_path / "reference", options)
    with pytest.raises(UserError, match=r"2 images in .*truth are named after other prompts .*one is the image of two"):
        check_plan(plan)
