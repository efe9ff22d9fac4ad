"""Batches: an image of each prompt, that go on where they stopped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from helpers.published_artifact import publish_model, publish_onnx, write_published_artifact
from helpers.small_artifact import write_small_artifact
from PIL import Image

from edgepress.cli.main import main
from edgepress.common.errors import UserError
from edgepress.evaluate.images.recorded_prompts import check_recorded_prompts
from edgepress.prompts.prompt import Prompt, prompt_seed, save_prompts
from edgepress.runtime.batch_record import read_batch_record, write_batch_record
from edgepress.runtime.generation_request import GenerationRequest
from edgepress.runtime.pipeline import ImagePipeline
from edgepress.storage.files import hash_file
from edgepress.storage.layout import Artifact

PROMPTS = [Prompt(id=name, prompt=f"a sign {name}", language="en") for name in ("one", "two", "three")]


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    (tmp_path / "artifact" / "onnx").mkdir(parents=True)
    return write_published_artifact(tmp_path / "artifact").path


@pytest.fixture
def image_artifact(tmp_path: Path) -> Path:
    """An artifact whose images can start from others, which are in the folder of the prompts."""
    folder = tmp_path / "artifact"
    (folder / "onnx").mkdir(parents=True)
    write_small_artifact(folder, has_encoder=True)
    publish_model(Artifact(folder), b"1")
    publish_onnx(Artifact(folder))
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (64, 32), "red").save(tmp_path / "photos" / "red.png")
    Image.new("RGB", (48, 48), "blue").save(tmp_path / "blue.jpg")
    return folder


def run(artifact: Path, *arguments: str, prompts: list[Prompt] = PROMPTS) -> Result:
    file = artifact.with_name("prompts.jsonl")
    save_prompts(prompts, file)
    defaults = {"--steps": "1", "--size": "32x48", "--output": str(artifact.with_name("images"))}
    options = [text for name, value in defaults.items() if name not in arguments for text in (name, value)]
    return CliRunner().invoke(main, ["generate", str(artifact), "--prompts", str(file), *options, *arguments])


def test_images_are_those_of_their_prompts(artifact: Path) -> None:
    result = run(artifact, "--seed", "3", "--json")
    assert result.exit_code == 0, result.output
    content = json.loads(result.stdout)
    assert content["generated"] == 3
    assert [Path(file).name for file in content["images"]] == ["one.png", "two.png", "three.png"]
    pipeline = ImagePipeline(artifact)
    for prompt, file in zip(PROMPTS, content["images"], strict=True):
        expected = pipeline(prompt.prompt, seed=prompt_seed(prompt.id, 3), steps=1, size=(32, 48))
        np.testing.assert_array_equal(np.asarray(Image.open(file)), np.asarray(expected))


def test_a_prompt_is_guided_by_its_own_scale(artifact: Path) -> None:
    prompts = [PROMPTS[0], PROMPTS[1].model_copy(update={"guidance": 3.0, "negative_prompt": "rain"})]
    files = json.loads(run(artifact, "--json", prompts=prompts).stdout)["images"]
    pipeline = ImagePipeline(artifact)
    for prompt, file, (guidance, negative) in zip(prompts, files, ((0.0, ""), (3.0, "rain")), strict=True):
        request = GenerationRequest(
            prompt.prompt, prompt_seed(prompt.id, 0), 1, (32, 48), guidance=guidance, negative_prompt=negative
        )
        np.testing.assert_array_equal(np.asarray(Image.open(file)), np.asarray(pipeline.generate(request)))
    changed = prompts[1].model_copy(update={"guidance": 4.0})
    assert "holds images of other settings or prompts (two)" in run(artifact, prompts=[prompts[0], changed]).stderr


def test_only_what_is_missing_is_generated(artifact: Path) -> None:
    assert "Generated 2 images" in run(artifact, prompts=PROMPTS[:2]).output
    first = artifact.with_name("images") / "one.png"
    modified = first.stat().st_mtime_ns
    (first.with_name("two.png")).unlink()
    assert "Generated 2 images" in run(artifact).output
    assert first.stat().st_mtime_ns == modified
    assert "Generated 0 images" in run(artifact).output
    assert "; 3 were there" in run(artifact).output


def test_an_image_that_was_cut_off_is_generated_again(artifact: Path) -> None:
    run(artifact)
    first = artifact.with_name("images") / "one.png"
    whole = first.read_bytes()
    first.write_bytes(whole[:100])
    assert "Generated 1 images" in run(artifact).output
    assert first.read_bytes() == whole


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_an_image_of_another_prompt_is_generated_again(artifact: Path, kind: str) -> None:
    options = ("--format", kind, "--quality", "90") if kind != "png" else ("--format", kind)
    assert run(artifact, *options).exit_code == 0
    first, second = (artifact.with_name("images") / f"{name}.{kind}" for name in ("one", "two"))
    before = first.read_bytes()
    first.write_bytes(second.read_bytes())
    result = run(artifact, *options)
    assert "Generated 1 images" in result.stdout
    assert f"{first} records another prompt and seed than this batch has. It is generated again." in result.stderr
    assert first.read_bytes() == before


@pytest.mark.parametrize(
    ("image", "problem"),
    [
        (Image.new("RGB", (16, 16)), "has 16x16 pixels instead of 32x48"),
        (Image.new("RGB", (48, 32)), "records another prompt and"),
        (None, "is cut off or damaged"),
    ],
)
def test_what_no_batch_wrote_is_generated_again(artifact: Path, image: Image.Image | None, problem: str) -> None:
    run(artifact)
    file = artifact.with_name("images") / "two.png"
    before = file.read_bytes()
    file.write_bytes(before[:200])
    if image is not None:
        image.save(file)
    result = run(artifact)
    assert f"{file} {problem}" in result.stderr
    assert file.read_bytes() == before


def test_images_do_not_belong_into_an_artifact(artifact: Path) -> None:
    result = run(artifact, "--output", str(artifact))
    assert result.exit_code == 2
    assert "is an artifact: images do not belong there" in result.stderr
    assert not (artifact / "one.png").exists()


def test_a_damaged_record_says_what_to_do(artifact: Path) -> None:
    run(artifact)
    (artifact.with_name("images") / "batch.json").write_text("{")
    assert "Remove it, and generate the images again in another folder." in run(artifact).stderr


@pytest.mark.parametrize(
    ("arguments", "prompts", "difference"),
    [
        (("--seed", "1"), PROMPTS, "(seed)"),
        (("--steps", "2", "--guidance", "3"), PROMPTS, "(guidance, steps)"),
        ((), [PROMPTS[0].model_copy(update={"prompt": "another"})], "(one)"),
    ],
)
def test_images_of_other_settings_are_refused(
    artifact: Path, arguments: tuple[str, ...], prompts: list[Prompt], difference: str
) -> None:
    assert run(artifact).exit_code == 0
    result = run(artifact, *arguments, prompts=prompts)
    assert result.exit_code == 2
    assert f"holds images of other settings or prompts {difference}" in result.stderr
    assert run(artifact, *arguments, "--restart", prompts=prompts).exit_code == 0


def test_files_of_another_program_are_not_replaced(artifact: Path) -> None:
    folder = artifact.with_name("images")
    folder.mkdir()
    (folder / "two.png").write_text("mine")
    assert "two.png is no image of a batch" in run(artifact).stderr
    assert [file.name for file in folder.iterdir()] == ["two.png"]


@pytest.mark.parametrize("restart", [(), ("--restart",)])
def test_a_folder_with_the_name_of_an_image_is_refused_before_any_work(
    artifact: Path, restart: tuple[str, ...]
) -> None:
    folder = artifact.with_name("images")
    (folder / "two.png").mkdir(parents=True)
    result = run(artifact, *restart)
    assert result.exit_code == 2
    assert "two.png is a folder, and an image would have its name. Move it" in result.stderr
    assert [file.name for file in folder.iterdir()] == ["two.png"]


def test_every_prompt_is_checked_before_the_first_image(artifact: Path) -> None:
    result = run(artifact, "--size", "33x48")
    assert "Invalid image size 33x48" in result.stderr
    assert not artifact.with_name("images").exists()


def test_an_interrupted_batch_goes_on(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generate = ImagePipeline.generate
    calls: list[object] = []

    def interrupt(self: ImagePipeline, *args: object) -> object:
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return generate(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(ImagePipeline, "generate", interrupt)
    result = run(artifact)
    assert result.exit_code == 130
    assert "Interrupted after 1 of 3 images. The same command goes on." in result.stderr
    assert "Generated 2 images" in run(artifact).output


@pytest.mark.parametrize("kind", ["jpeg", "webp"])
def test_formats(artifact: Path, kind: str) -> None:
    assert run(artifact, "--format", kind, "--quality", "40").exit_code == 0
    with Image.open(artifact.with_name("images") / f"one.{kind}") as image:
        assert image.format == kind.upper()


def test_a_preset_and_what_replaces_a_part_of_it(artifact: Path) -> None:
    presets = {"fast": {"steps": 3, "size": [32, 48]}, "quality": {"steps": 9}}
    publish_onnx(Artifact(artifact), presets=presets)
    output = artifact.with_name("a.png")
    arguments = ["generate", str(artifact), "--prompt", "x", "-o", str(output), "--json", "--preset"]
    answer = json.loads(CliRunner().invoke(main, [*arguments, "fast"]).stdout)
    assert (answer["steps"], answer["size"]) == (3, [32, 48])
    answer = json.loads(CliRunner().invoke(main, [*arguments, "quality", "--steps", "2", "--size", "48x32"]).stdout)
    assert (answer["steps"], answer["size"]) == (2, [48, 32])
    assert "Unknown preset 'slow'; known: fast, quality." in CliRunner().invoke(main, [*arguments, "slow"]).stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "Give either --prompt or --prompts."),
        (("--prompt", "x", "--prompts", "smoke"), "Give either --prompt or --prompts."),
        (("--prompt", "x", "--restart"), "are for --prompts"),
        (("--prompt", "x", "--negative-prompt", "y"), "--negative-prompt has no effect: there is no --guidance"),
    ],
)
def test_options_that_do_not_go_together(artifact: Path, arguments: tuple[str, ...], message: str) -> None:
    result = CliRunner().invoke(main, ["generate", str(artifact), "-o", str(artifact.with_name("a.png")), *arguments])
    assert result.exit_code == 2
    assert message in result.stderr


STARTS = [
    PROMPTS[0],
    PROMPTS[1].model_copy(update={"image": "photos/red.png", "strength": 0.9}),
    PROMPTS[2].model_copy(update={"image": "photos/red.png"}),
]


def test_prompts_start_from_their_own_images(image_artifact: Path) -> None:
    result = run(image_artifact, "--steps", "5", "--json", prompts=STARTS)
    assert result.exit_code == 0, result.output
    pipeline, red = ImagePipeline(image_artifact), Image.open(image_artifact.with_name("photos") / "red.png")
    for file, prompt, (image, strength) in zip(
        json.loads(result.stdout)["images"], STARTS, ((None, 0.6), (red, 0.9), (red, 0.6)), strict=True
    ):
        request = GenerationRequest(
            prompt.prompt,
            prompt_seed(prompt.id, 0),
            5,
            (32, 48),
            image=image and image.convert("RGB"),
            strength=strength,
        )
        np.testing.assert_array_equal(np.asarray(Image.open(file)), np.asarray(pipeline.generate(request)))
    assert "Generated 0 images" in run(image_artifact, "--steps", "5", prompts=STARTS).output


def test_an_image_and_a_strength_are_for_prompts_that_name_none(image_artifact: Path, tmp_path: Path) -> None:
    options = ("--steps", "5", "--image", str(tmp_path / "blue.jpg"), "--strength", "0.5")
    assert run(image_artifact, *options, prompts=STARTS).exit_code == 0
    blue = Image.open(tmp_path / "blue.jpg").convert("RGB")
    request = GenerationRequest(PROMPTS[0].prompt, prompt_seed("one", 0), 5, (32, 48), image=blue, strength=0.5)
    expected = ImagePipeline(image_artifact).generate(request)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "images" / "one.png")), np.asarray(expected))


def test_another_image_under_the_same_name_is_other_work(image_artifact: Path, tmp_path: Path) -> None:
    assert run(image_artifact, "--steps", "5", prompts=STARTS).exit_code == 0
    Image.new("RGB", (64, 32), "green").save(tmp_path / "photos" / "red.png")
    error = run(image_artifact, "--steps", "5", prompts=STARTS).stderr
    assert "holds images of other settings or prompts (three, two)" in error or "(two, three)" in error
    changed = [*STARTS[:1], STARTS[1].model_copy(update={"strength": 0.8})]
    assert "(two)" in run(image_artifact, "--steps", "5", prompts=changed).stderr


@pytest.mark.parametrize(
    ("prompt", "arguments", "message"),
    [
        (
            {"image": "photos/none.png"},
            (),
            "photos/none.png (No such file or directory). Correct 'image' of the prompt 'one'",
        ),
        ({"image": "photos"}, (), "Correct 'image' of the prompt 'one'"),
        ({"image": "prompts.jsonl"}, (), "prompts.jsonl cannot be read (its format is unknown)"),
        ({"strength": 0.5}, (), "The prompt 'one' has a strength and no image to start from."),
        ({"language": "en"}, ("--strength", "0.5"), "--strength has no effect: no prompt has an image to start from."),
    ],
)
def test_images_that_cannot_be_read_are_named_before_the_first_image(
    image_artifact: Path, prompt: dict[str, object], arguments: tuple[str, ...], message: str
) -> None:
    result = run(image_artifact, *arguments, prompts=[PROMPTS[0].model_copy(update=prompt)])
    assert result.exit_code == 2
    assert message in result.stderr
    assert not image_artifact.with_name("images").exists()


def test_an_artifact_without_an_encoder_names_it(artifact: Path) -> None:
    Image.new("RGB", (64, 32)).save(artifact.with_name("a.png"))
    result = run(artifact, prompts=[PROMPTS[0].model_copy(update={"image": "a.png"})])
    assert "--extra-graph vae_encoder" in result.stderr


def test_files_that_were_exchanged_are_found_without_any_provenance(artifact: Path) -> None:
    """Files that say nothing of their prompts: batch.json says what was written where."""
    folder = artifact.with_name("images")
    assert run(artifact, "--provenance", "none").exit_code == 0
    check_recorded_prompts(folder, {})
    settings, texts, _ = read_batch_record(folder) or pytest.fail("no record")
    for name, colour in (("one.png", "red"), ("two.png", "blue")):
        Image.new("RGB", (48, 32), colour).save(folder / name)
    write_batch_record(folder, settings, texts, {name: hash_file(folder / name) for name in ("one.png", "two.png")})
    check_recorded_prompts(folder, {})
    (folder / "one.png").rename(folder / "x")
    (folder / "two.png").rename(folder / "one.png")
    (folder / "x").rename(folder / "two.png")
    with pytest.raises(UserError, match=r"not those that batch\.json lists: one\.png is what was written as two\.png"):
        check_recorded_prompts(folder, {})


def test_a_file_that_was_changed_is_generated_again(artifact: Path) -> None:
    run(artifact, "--provenance", "none")
    file = artifact.with_name("images") / "one.png"
    written = file.read_bytes()
    Image.new("RGB", (48, 32)).save(file)
    result = run(artifact, "--provenance", "none")
    assert f"{file} is not the file that this batch wrote. It is generated again." in result.stderr
    assert file.read_bytes() == written


@pytest.mark.parametrize("content", [{"prompts": ["a"]}, {"files": {"one.png": 1}}, {"prompts": None}])
def test_a_record_of_another_form_is_refused(artifact: Path, content: dict[str, Any]) -> None:
    run(artifact)
    (artifact.with_name("images") / "batch.json").write_text(json.dumps(content))
    assert "batch.json is damaged: its '" in run(artifact).stderr


def test_options_that_the_prompts_replace_are_refused(artifact: Path) -> None:
    guided = [prompt.model_copy(update={"guidance": 2.0}) for prompt in PROMPTS]
    assert (
        "--guidance has no effect: every prompt has its own" in run(artifact, "--guidance", "3", prompts=guided).stderr
    )
    assert run(artifact, "--negative-prompt", "blue", prompts=guided).exit_code == 0
    all_given = [prompt.model_copy(update={"negative_prompt": "red"}) for prompt in guided]
    assert (
        "--negative-prompt has no effect: every" in run(artifact, "--negative-prompt", "blue", prompts=all_given).stderr
    )
    unguided = [prompt.model_copy(update={"negative_prompt": "red"}) for prompt in PROMPTS]
    assert "have a negative prompt that has no effect" in run(artifact, "--restart", prompts=unguided).stderr
