"""Model repositories, written without a network, and their cards as huggingface_hub reads them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from helpers.previous_artifact import extract_previous_artifact
from huggingface_hub import ModelCard
from PIL import Image

import edgepress
from edgepress.api.hub_publishing import publish
from edgepress.api.repository_card import read_source_card
from edgepress.api.verification import verify
from edgepress.api.weight_exports import export_diffusers, export_gguf
from edgepress.cli.main import main
from edgepress.evaluate.results.results_file import load_results, save_results
from edgepress.recipes.loader import load_recipe

SOURCE_CARD = """---
license: other
license_name: a-license
license_link: https://example.org/LICENSE
language: [en, zh]
tags: [art]
---
# The original
"""


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = extract_previous_artifact(tmp_path_factory.mktemp("publish"))
    export_diffusers(output=folder)
    return folder


@pytest.fixture(scope="module")
def repository(artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("repository") / "out"
    arguments = ["publish", str(artifact), "me/tiny-int4", "--dry-run", "--output", str(folder)]
    options = ["--base-model", "them/tiny", "--license", "apache-2.0"]
    result = CliRunner().invoke(main, [*arguments, *options])
    assert result.exit_code == 0, result.output
    assert "not uploaded" in result.stdout
    return folder


def test_the_card_is_read_by_huggingface_hub(repository: Path) -> None:
    card = ModelCard.load(repository / "README.md")
    assert card.data.base_model == "them/tiny"
    assert card.data.to_dict()["base_model_relation"] == "quantized"
    assert (card.data.license, card.data.library_name, card.data.pipeline_tag) == (
        "apache-2.0",
        "diffusers",
        "text-to-image",
    )
    assert 'from_pretrained("me/tiny-int4")' in card.text
    assert "| PSNR dB ↑ | `artifact-model` | 3 | **47.12** | [45.53, 48.32] |" in card.text


def test_the_card_names_files_without_folders_of_this_computer(artifact: Path, tmp_path: Path) -> None:
    copy, folder = tmp_path / "artifact", tmp_path / "out"
    shutil.copytree(artifact, copy)
    report = copy / "evaluation" / "report.md"
    local = "`q4`: `transformer:/home/me/q4.gguf,vae:/home/me/my files/vae.gguf, SHA-256 1f` of `http://127.0.0.1:80/x`"
    report.write_text(f"{report.read_text('utf-8')}\n- {local}\n", "utf-8")
    result = CliRunner().invoke(main, ["publish", str(copy), "me/tiny-int4", "--dry-run", "--output", str(folder)])
    assert result.exit_code == 0, result.output
    text = (folder / "README.md").read_text("utf-8")
    assert "The card names no licence, and without one nothing is uploaded. Pass --license." in result.stderr
    assert "`q4`: `transformer:q4.gguf,vae:vae.gguf, SHA-256 1f` of `http://127.0.0.1:80/x`" in text
    assert not re.search(r"`/\w", text)


def test_the_code_of_the_card_opens_the_repository(artifact: Path, tmp_path: Path) -> None:
    """With edgepress, and with diffusers' GGUF loader; other components are its own, since its original is a folder."""
    copy, folder = tmp_path / "artifact", tmp_path / "out"
    shutil.copytree(artifact, copy)
    export_gguf(output=copy)
    publish(copy, "me/tiny", license="mit", dry_run=True, output=folder, folders=["model", "gguf"])
    text = ModelCard.load(folder / "README.md").text
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        names: dict[str, Any] = {}
        exec(block.replace("me/tiny", str(folder)).replace("weights/", f"{folder}/"), names)
        assert type(names["pipeline"]).__name__ == "ZImagePipeline"
    assert names["pipeline"].transformer is names["transformer"]
    assert names["transformer"].hf_quantizer.quantization_config.quant_method == "gguf"


def test_the_card_names_what_to_install(repository: Path) -> None:
    text = ModelCard.load(repository / "README.md").text
    assert "auto-round-lib==" in text
    assert "edgepress quantize --recipe recipe.yaml --model them/tiny" in text


def test_the_card_shows_the_first_images_beside_the_originals(artifact: Path, tmp_path: Path) -> None:
    copy = tmp_path / "artifact"
    shutil.copytree(artifact, copy)
    results = load_results(copy / "evaluation" / "results.json")
    identity = results.identity.model_copy(update={"image_folder": str(tmp_path)})
    save_results(results.model_copy(update={"identity": identity}), copy / "evaluation" / "results.json")
    sample, name = results.samples[1], "artifact-model"  # the first one has no images
    images = {"original": sample.reference, name: sample.variants[name].image}
    for number, image in enumerate(images.values()):
        assert image is not None
        (tmp_path / image.file).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / image.file)
    publish(copy, "me/tiny", license="mit", dry_run=True, output=tmp_path / "out")
    text = ModelCard.load(tmp_path / "out" / "README.md").text
    assert f"| ![original](samples/1-original.png) | ![{name}](samples/1-variant.png) |" in text
    assert Image.open(tmp_path / "out" / "samples" / "1-variant.png").getpixel((0, 0)) == (1, 0, 0)
    assert verify(tmp_path / "out", run=False).passed


def test_stock_diffusers_is_the_top_of_the_repository(repository: Path, artifact: Path) -> None:
    assert (repository / "transformer" / "config.json").read_bytes() == (
        artifact / "diffusers" / "transformer" / "config.json"
    ).read_bytes()
    assert (repository / "onnx" / "pipeline.json").is_file()
    assert not (repository / "model").exists()


def test_every_file_is_in_the_checksums(repository: Path) -> None:
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=repository, check=True)
    listed = {line.split("  ", 1)[1] for line in (repository / "SHA256SUMS").read_text("utf-8").splitlines()}
    files = {path.relative_to(repository).as_posix() for path in repository.rglob("*") if path.is_file()}
    assert files - listed == {"SHA256SUMS"}


def test_the_recipe_can_be_used_again(repository: Path) -> None:
    assert load_recipe(repository / "recipe.yaml").quantize.scheme.group_size == 32


def test_the_licence_of_the_original_is_carried_over_and_named(
    artifact: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "README.source.md").write_text(SOURCE_CARD, "utf-8")
    assert read_source_card(tmp_path) == {
        "license": "other",
        "license_name": "a-license",
        "license_link": "https://example.org/LICENSE",
        "language": ["en", "zh"],
    }
    publish(artifact, "me/x", license="other", dry_run=True, output=tmp_path / "out", folders=["model"])
    assert "a licence that restricts its use" in caplog.text


def test_an_unknown_licence_is_announced(artifact: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is not refused, since the Hub has identifiers that SPDX has not, such as openrail."""
    publish(artifact, "me/x", license="nonsense-1", dry_run=True, output=tmp_path / "out", folders=["model"])
    assert "The licence 'nonsense-1' is no identifier of SPDX" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("me/x", "--dry-run"), "Name it with --output"),
        (
            ("me/x", "--dry-run", "--output", "out", "--folder", "rknn"),
            "has no folder 'rknn'. Choose from: model, onnx",
        ),
        (("a b", "--dry-run", "--output", "out"), "'a b' is not the name of a repository"),
        (("x", "--dry-run", "--output", "out"), "'x' names no owner"),
        (("me/x",), "Pass --license"),
        (("me/x", "--license", "mit\nevil: yes"), "is no identifier of a licence"),
        (("me/x", "--license", "mit", "--base-model", "/a/folder"), "is not the name of a repository"),
    ],
)
def test_bad_input_is_one_sentence(
    arguments: tuple[str, ...], sentence: str, artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["publish", str(artifact), *arguments])
    assert result.exit_code == 2, result.output
    assert sentence in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_output_is_not_inside_the_artifact(artifact: Path) -> None:
    with pytest.raises(edgepress.UserError, match=r"is inside the artifact .* Choose another --output"):
        publish(artifact, "me/x", dry_run=True, output=artifact / "repository")
    assert not (artifact / "repository").exists()


def test_a_repository_is_verified_as_a_whole_and_describes_itself(repository: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", str(repository), str(copy)], check=True)
    assert edgepress.verify(copy).passed
    (copy / "more").touch()
    weights = next(copy.glob("transformer/*.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    problems = {problem.path: str(problem.status) for problem in edgepress.verify(copy).problems}
    assert problems == {f"transformer/{weights.name}": "changed", "more": "added"}
    (copy / "SHA256SUMS").unlink()
    assert [problem.path for problem in edgepress.verify(copy).problems] == ["SHA256SUMS"]
    for command in (edgepress.describe, lambda path: edgepress.diff(path, path)):
        with pytest.raises(edgepress.UserError, match="Give the artifact that it was made of"):
            command(repository)


def test_exports_of_weights_are_described_and_compared(artifact: Path, tmp_path: Path) -> None:
    copy = tmp_path / "artifact"
    subprocess.run(["cp", "-r", str(artifact), str(copy)], check=True)
    subprocess.run(["rm", "-r", str(copy / "diffusers")], check=True)
    comparison = edgepress.diff(copy, artifact)
    assert "diffusers/model_index.json" in comparison.added
    description = edgepress.describe(copy)
    assert "diffusers" not in description.components


def test_an_upload_needs_a_token(artifact: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(edgepress.UserError, match="no token to upload with"):
        publish(artifact, "me/x", license="apache-2.0", output=tmp_path / "out")


def test_a_folder_that_is_not_as_it_was_published_is_refused(artifact: Path, tmp_path: Path) -> None:
    broken = tmp_path / "artifact"
    subprocess.run(["cp", "-r", str(artifact), str(broken)], check=True)
    with (broken / "diffusers" / "model_index.json").open("a", encoding="utf-8") as file:
        file.write("\n")
    with pytest.raises(edgepress.UserError, match="model_index"):
        publish(broken, "me/x", dry_run=True, output=tmp_path / "out")


def test_what_an_error_advises_is_said_alone(artifact: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(artifact, tmp_path / "artifact"))
    with (copy / "diffusers" / "export.json").open("a", encoding="utf-8") as file:
        file.write("\n")
    with pytest.raises(edgepress.UserError, match=r"^[^.]*diffusers/export\.json [^.]*\. Run '[^.]*' again\.$"):
        publish(copy, "me/x", dry_run=True, output=tmp_path / "out")


def test_an_export_after_the_description_asks_for_another_description_only(artifact: Path, tmp_path: Path) -> None:
    copy = tmp_path / "artifact"
    subprocess.run(["cp", "-r", str(artifact), str(copy)], check=True)
    edgepress.describe(copy)
    export_gguf(output=copy)
    with pytest.raises(edgepress.UserError, match=r"in gguf\. Run 'edgepress describe' again\.$"):
        publish(copy, "me/x", dry_run=True, output=tmp_path / "out")
