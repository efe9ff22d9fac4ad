"""`edgepress generate`: its options, and how it rejects bad input."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from helpers.torch_graphs import make_torch_runner, write_stub_artifact
from PIL import Image

from edgepress.cli.main import main
from edgepress.common import system_memory
from edgepress.pipelines.sampling import load_pipeline
from edgepress.runtime import pipeline


@pytest.fixture
def artifact(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    run = make_torch_runner(load_pipeline(tiny, torch.float32))
    monkeypatch.setattr(pipeline, "SessionPool", lambda *_: run)
    write_stub_artifact(tiny, tmp_path / "artifact")
    return tmp_path / "artifact"


def generate(artifact: Path, output: Path, *arguments: str, **kwargs: Any) -> Result:
    defaults = {"--prompt": "a cat", "--steps": "1"}
    options = [text for name, value in defaults.items() if name not in arguments for text in (name, value)]
    return CliRunner().invoke(main, ["generate", str(artifact), "-o", str(output), *options, *arguments], **kwargs)


def get_error(result: Result) -> str:
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp"])
def test_file_name_selects_the_image_format(artifact: Path, tmp_path: Path, name: str) -> None:
    result = generate(artifact, tmp_path / name, "--size", "32x48")
    assert result.exit_code == 0, result.output
    with Image.open(tmp_path / name) as image:
        assert image.size == (48, 32)
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(["artifact", name])


def test_only_the_image_is_written(artifact: Path, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "a.png.new").write_text("the user's")
    assert generate(artifact, folder / "a.png", "--size", "32x48").exit_code == 0
    assert sorted(path.name for path in folder.iterdir()) == ["a.png", "a.png.new"]
    assert (folder / "a.png.new").read_text() == "the user's"


def test_invalid_size(artifact: Path, tmp_path: Path) -> None:
    assert "Invalid image size 60x64" in get_error(generate(artifact, tmp_path / "a.png", "--size", "60x64"))
    assert not (tmp_path / "a.png").exists()


def test_a_step_cache_that_can_skip_no_step_is_refused(artifact: Path, tmp_path: Path) -> None:
    error = get_error(generate(artifact, tmp_path / "a.png", "--step-cache", "0.1", "--steps", "3"))
    assert (
        "The step cache has no effect: the first two steps and the last are always computed, and there are 3" in error
    )
    assert not (tmp_path / "a.png").exists()


def test_a_size_beyond_the_position_tables(artifact: Path, tmp_path: Path) -> None:
    """Known from arithmetic: noise of that size would take 10 GB."""
    error = get_error(generate(artifact, tmp_path / "a.png", "--size", "100000x100000"))
    assert "the model's position tables end at 1024x1024 pixels. Choose a smaller size." in error


def test_out_of_memory(artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine with 64 kB."""
    (tmp_path / "meminfo").write_text("MemTotal: 64 kB\n")
    monkeypatch.setattr(system_memory, "MEMINFO", tmp_path / "meminfo")
    error = get_error(generate(artifact, tmp_path / "a.png"))
    assert "An image of 64x64 takes at least 0.0 GiB of memory, but this process can have 0.0 GiB." in error
    assert "Choose a smaller size, or decode in tiles." in error


def test_artifact_without_exports(tmp_path: Path) -> None:
    assert "Give an artifact that 'edgepress export onnx'" in get_error(generate(tmp_path, tmp_path / "a.png"))


@pytest.mark.parametrize("output", ["nowhere/a.png", "artifact"])
def test_output_is_checked_before_generation(artifact: Path, tmp_path: Path, output: str) -> None:
    name = tmp_path / output
    name = name if name.suffix else name.with_name("b.png")
    if output == "artifact":
        name.mkdir()
    assert "cannot be written" in get_error(generate(artifact, name))


@pytest.mark.parametrize("exists", [True, False])
def test_a_link_is_followed_and_stays(artifact: Path, tmp_path: Path, exists: bool) -> None:
    real = tmp_path / "disk" / "image.dat"
    real.parent.mkdir()
    if exists:
        real.write_text("earlier")
    link = tmp_path / "a.png"
    link.symlink_to(real)
    result = generate(artifact, link, "--size", "32x48")
    assert result.stdout == f"Generated {link}\n"
    assert link.readlink() == real
    with Image.open(real) as image:
        assert (image.format, image.size) == ("PNG", (48, 32))


@pytest.mark.parametrize("target", ["nowhere/a.png", "a.png", "socket", "artifact/onnx/a.png"])
def test_a_link_that_cannot_be_followed_is_refused_and_stays(artifact: Path, tmp_path: Path, target: str) -> None:
    link = tmp_path / "a.png"
    link.symlink_to(tmp_path / target)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        error = get_error(generate(artifact, link))
    assert ("it does not belong there" if "onnx" in target else f"{link} ") in error
    assert link.readlink() == tmp_path / target


def test_a_pipe_is_written_to(artifact: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "a.tiff"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as pool:
        content = pool.submit(pipe.read_bytes)
        assert generate(artifact, pipe, "--size", "32x48").exit_code == 0
        with Image.open(BytesIO(content.result())) as image:
            assert (image.format, image.size) == ("TIFF", (48, 32))
    assert pipe.is_fifo()


def test_a_device_is_written_to(artifact: Path, tmp_path: Path) -> None:
    (tmp_path / "a.png").symlink_to("/dev/null")
    assert generate(artifact, tmp_path / "a.png", "--size", "32x48").exit_code == 0
    assert (tmp_path / "a.png").is_char_device()


@pytest.mark.parametrize(
    "name",
    ["a", "a.txt", "a.onnx"]
    + [f"a.{kind}" for kind in ("xbm", "msp", "palm", "hdf", "h5", "grib", "bufr", "wmf", "emf", "blp")],
)
def test_file_name_without_an_image_format(artifact: Path, tmp_path: Path, name: str) -> None:
    assert "names no image format" in get_error(generate(artifact, tmp_path / name))


def test_long_prompt_is_truncated_with_a_warning(artifact: Path, tmp_path: Path) -> None:
    result = generate(artifact, tmp_path / "a.png", "--prompt", "c" * 600)
    assert result.exit_code == 0
    assert "the model reads the first 512" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("--seed", "-1"),
        ("--seed", "1.5"),
        ("--seed", str(2**63)),
        ("--steps", "0"),
        ("--steps", "100000000"),
        ("--size", "64"),
        ("--size", "axb"),
    ],
)
def test_wrong_usage_exits_with_2(artifact: Path, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    result = generate(artifact, tmp_path / "a.png", *arguments)
    assert result.exit_code == 2
    assert "Usage:" in result.stderr


@pytest.mark.parametrize("name", ["pipe", "/dev/zero"])
def test_an_image_without_end_is_not_read(artifact: Path, tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    if not file.exists():
        os.mkfifo(file)
    message = get_error(generate(artifact, tmp_path / "a.png", "--image", str(file)))
    assert f"{file} is no file but a pipe, socket or device" in message
    assert "Give an image file as --image." in message


def test_a_file_that_is_no_image_is_named_so(artifact: Path, tmp_path: Path) -> None:
    file = tmp_path / "notes.png"
    file.write_text("no image")
    message = get_error(generate(artifact, tmp_path / "a.png", "--image", str(file)))
    assert (
        message == f"Error: The image {file} cannot be read (its format is unknown). Give a PNG, JPEG or WebP file.\n"
    )


@pytest.mark.slow
@pytest.mark.parametrize(("name", "is_needed"), [("a.png", False), ("a.jpg", False), ("a.tiff", True)])
def test_formats_that_are_not_written_take_no_memory(name: str, is_needed: bool) -> None:
    code = (
        "import sys; from pathlib import Path; from edgepress.cli.image_output import resolve_output; "
        f"resolve_output(Path({name!r}), 90); sys.exit(9 if 'PIL.TiffImagePlugin' in sys.modules else 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == (9 if is_needed else 0)


def test_help_does_not_import_torch() -> None:
    script = (
        "import sys; from edgepress.cli.main import main; main(['generate', '--help'], standalone_mode=False);"
        "sys.exit(9 if {'torch', 'diffusers', 'transformers', 'onnx'} & set(sys.modules) else 0)"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, check=False).returncode == 0
