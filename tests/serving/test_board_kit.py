"""The board kit: its files, what systemd and the shell say of them, and that it names every file."""

from __future__ import annotations

import configparser
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from click.testing import CliRunner
from helpers.published_artifact import write_published_artifact

from edgepress.cli.main import main
from edgepress.cli.serve import serve
from edgepress.common.errors import UserError
from edgepress.serving.board_kit import write_board_kit
from edgepress.serving.wheelhouse import find_wheel_python
from edgepress.storage.checksums import write_checksums
from edgepress.storage.files import hash_files, write_json
from edgepress.storage.layout import CHECKSUMS_NAME, DOCUMENT_NAMES


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    (tmp_path / "my artifact" / "onnx").mkdir(parents=True)
    return write_published_artifact(tmp_path / "my artifact").path


def run(folder: Path, *command: str) -> str:
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_the_kit_is_written_and_replaced(artifact: Path) -> None:
    wheels = artifact.with_name("wheels")
    wheels.mkdir()
    with zipfile.ZipFile(wheels / "edgepress-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("edgepress/__init__.py", "")
    with zipfile.ZipFile(wheels / "numpy-2-cp311-cp311-manylinux_2_28_aarch64.whl", "w") as wheel:
        wheel.writestr("numpy/__init__.py", "")
    for _ in range(2):
        result = CliRunner().invoke(main, ["kit", str(artifact), "--wheelhouse", str(wheels)])
        assert result.exit_code == 0, result.output
    run(artifact / "kit", "sha256sum", "--check", "--quiet", "SHA256SUMS")
    assert (artifact / "kit" / "wheelhouse" / "edgepress-1-py3-none-any.whl").exists()
    assert "FROM docker.io/library/python:3.11-slim\n" in (artifact / "kit" / "Containerfile").read_text("utf-8")
    assert not [path.name for path in artifact.iterdir() if path.name.startswith(".kit")]
    assert CliRunner().invoke(main, ["verify", str(artifact)]).exit_code == 0


@pytest.mark.parametrize(
    ("wheel", "message"),
    [
        ("numpy-2-cp37-cp37-manylinux_2_28_{machine}.whl", "The kit's wheels are for Python 3.7, and python3 is 3."),
        ("numpy-2-cp3{minor}-cp3{minor}-manylinux_2_28_{foreign}.whl", "The kit's wheels are for {foreign}, and this"),
    ],
)
def test_wheels_for_another_board_are_refused_before_anything_is_installed(
    artifact: Path, wheel: str, message: str
) -> None:
    """The script believes that it is run by root; its `python3` is the one that runs this test."""
    machine = platform.machine()
    names = {"machine": machine, "minor": sys.version_info.minor}
    names["foreign"] = "x86_64" if machine == "aarch64" else "aarch64"
    wheels = artifact.with_name("wheels")
    wheels.mkdir()
    for name in ("edgepress-1-py3-none-any.whl", wheel.format(**names)):
        with zipfile.ZipFile(wheels / name, "w") as file:
            file.writestr("a", "")
    script = write_board_kit(artifact, wheels) / "install.sh"
    tools = artifact.with_name("tools")
    tools.mkdir()
    (tools / "id").write_text("#!/bin/sh\necho 0\n")
    (tools / "id").chmod(0o755)
    (tools / "python3").symlink_to(sys.executable)
    environment = {"PATH": f"{tools}:{os.environ['PATH']}", "PREFIX": str(artifact.with_name("prefix"))}
    result = subprocess.run(["sh", str(script)], env=environment, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith(f"Error: {message.format(**names)}")
    assert "Make the kit again" in result.stderr or "make the kit again" in result.stderr
    assert not artifact.with_name("prefix").exists()


def test_memory_limits_are_those_of_the_plan(artifact: Path) -> None:
    write_json({"memory_plan": {"resident_bytes": 2**30, "phased_bytes": 2**29}}, artifact / "artifact.json")
    service = (write_board_kit(artifact) / "edgepress.service").read_text("utf-8")
    assert "MemoryHigh=1530M\nMemoryMax=1836M\n" in service  # (1024 + 200) MiB times 1.25 and 1.5
    assert "MemAvailable" in service


def test_memory_limits_are_never_above_what_the_device_has(artifact: Path) -> None:
    """Of a plan in phases, whose graphs do not all fit: 8.9 GB of 7.9 GB."""
    plan = {"resident_bytes": 8_933_000_000, "phased_bytes": 4_427_000_000, "usable_bytes": 7_946_000_000}
    write_json({"memory_plan": plan}, artifact / "artifact.json")
    service = (write_board_kit(artifact) / "edgepress.service").read_text("utf-8")
    assert "MemoryHigh=7199M\nMemoryMax=7578M\n" in service  # 95 % of the usable memory, and all of it, in MiB
    assert "smallest version of the device" in service


def test_without_systemd_the_server_has_the_environment_of_the_file(artifact: Path) -> None:
    prefix, kit = artifact.with_name("prefix"), write_board_kit(artifact)
    program = prefix / "venv" / "bin" / "edgepress"
    program.parent.mkdir(parents=True)
    program.write_text('#!/bin/sh\necho "$EDGEPRESS_TOKEN|$MALLOC_ARENA_MAX|$*"\n')
    program.chmod(0o755)
    environment = (kit / "edgepress.env").read_text("utf-8")
    (prefix / "edgepress.env").write_text(environment.replace("#EDGEPRESS_TOKEN=", 'EDGEPRESS_TOKEN="a b"'))
    start = re.search(r'^start="(.*)"$', (kit / "install.sh").read_text("utf-8"), re.MULTILINE)
    assert start
    config = configparser.ConfigParser(interpolation=None, inline_comment_prefixes=(";",))
    config.read_string((kit / "supervisor.conf").read_text("utf-8").replace("@PREFIX@", str(prefix)))
    command = shlex.split(config["program:edgepress"]["command"])
    by_hand = start[1].replace("$prefix", str(prefix)).replace("$state", "/state")
    for started in (command, ["sh", "-c", by_hand]):
        assert run(artifact, *started).startswith(f"a b|2|serve {prefix}/artifact ")


@pytest.mark.parametrize(("form", "setting", "devices"), [("qdq", "", "no"), ("ort", "#", "yes")])
def test_graphs_in_the_form_of_tensorrt_run_on_a_gpu_if_there_is_one(
    artifact: Path, form: str, setting: str, devices: str
) -> None:
    config = artifact / "onnx" / "pipeline.json"
    write_json(json.loads(config.read_text("utf-8")) | {"format": form}, config)
    write_checksums([*hash_files(artifact / "onnx")], artifact / "onnx")
    kit = write_board_kit(artifact)
    assert f"\n{setting}EDGEPRESS_PROVIDER=auto\n" in (kit / "edgepress.env").read_text("utf-8")
    assert f"PrivateDevices={devices}\n" in (kit / "edgepress.service").read_text("utf-8")
    (option,) = [parameter for parameter in serve.params if parameter.name == "providers"]
    assert option.envvar == "EDGEPRESS_PROVIDER"


def test_systemd_accepts_the_unit(artifact: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze")
    prefix = artifact.with_name("prefix")
    program = prefix / "venv" / "bin" / "edgepress"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    unit = artifact.with_name("edgepress.service")
    text = (write_board_kit(artifact) / "edgepress.service").read_text("utf-8").replace("@PREFIX@", str(prefix))
    # The user is created by install.sh.
    unit.write_text(text.replace("User=edgepress", "User=root").replace("Group=edgepress", "Group=root"))
    run(artifact, "systemd-analyze", "verify", "--man=no", str(unit))


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("90 % of %h", "90 %% of %%h"),
        ("pi5\nExecStartPre=touch x", r"pi5\nExecStartPre=touch x"),
        ("pi5\\", "pi5\\"),  # at the end of a line, it would continue it
    ],
)
def test_a_folder_name_adds_nothing_to_the_unit(name: str, shown: str, artifact: Path) -> None:
    unit = write_board_kit(artifact.rename(artifact.with_name(name))) / "edgepress.service"
    config = configparser.ConfigParser(interpolation=None, strict=False)
    config.read_string(unit.read_text("utf-8"))
    assert config["Unit"]["Description"] == f"edgepress: images from '{shown}'"
    assert "ExecStartPre" not in config["Unit"]


@pytest.mark.parametrize("prefix", ["opt/edgepress", "/opt/my apps", "/opt/a|b", "/opt/a&b", "/opt/%h"])
def test_a_place_that_a_service_cannot_name_is_refused(prefix: str, artifact: Path) -> None:
    script = write_board_kit(artifact) / "install.sh"
    result = subprocess.run(["sh", str(script)], env={"PREFIX": prefix}, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith(f"Error: PREFIX is '{prefix}', which a service cannot name. Give an absolute path")


def test_the_shell_accepts_the_script(artifact: Path) -> None:
    script = write_board_kit(artifact) / "install.sh"
    run(artifact, "sh", "-n", str(script))
    assert "$$" not in script.read_text("utf-8")


def test_what_verify_compares_comes_along(artifact: Path) -> None:
    """Of the artifact's own folder, SHA256SUMS lists these files on a board too."""
    kit = write_board_kit(artifact)
    for name in ("manifest.json", CHECKSUMS_NAME, *DOCUMENT_NAMES):
        assert f" {name}" in (kit / "install.sh").read_text("utf-8")
        assert re.search(rf" {name[:-1]}\[{name[-1]}\]", (kit / "Containerfile").read_text("utf-8"))


@pytest.mark.parametrize("folder", [".", "onnx", "kit/wheels"])
def test_no_wheels_are_put_into_an_artifact(artifact: Path, folder: str) -> None:
    before = sorted(artifact.rglob("*"))
    result = CliRunner().invoke(main, ["wheelhouse", "--output", str(artifact / folder)])
    assert result.exit_code == 2
    assert re.search(r"which is an (artifact|export): it does not belong there\. Choose another output", result.stderr)
    assert sorted(artifact.rglob("*")) == before


def test_a_wheelhouse_without_edgepress_is_refused(artifact: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["kit", str(artifact), "--wheelhouse", str(tmp_path)])
    assert result.exit_code == 2
    assert "holds no wheel of edgepress" in result.stderr
    (tmp_path / "edgepress-1-py3-none-any.whl").touch()
    result = CliRunner().invoke(main, ["kit", str(artifact), "--wheelhouse", str(tmp_path)])
    assert result.exit_code == 2
    assert "edgepress-1-py3-none-any.whl is no wheel, or not a whole one" in result.stderr


def test_the_containerfile_copies_what_there_is_and_runs_what_the_shell_accepts(artifact: Path) -> None:
    text = (write_board_kit(artifact) / "Containerfile").read_text("utf-8").replace("\\\n", "")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    instructions = [tuple(line.split(maxsplit=1)) for line in lines]
    assert instructions[0] == ("FROM", "docker.io/library/python:3.13-slim")
    assert {name for name, _ in instructions} == {"FROM", "RUN", "COPY", "ENV", "USER", "EXPOSE", "HEALTHCHECK", "CMD"}
    for name, rest in instructions:
        if name == "RUN":
            run(artifact, "sh", "-n", "-c", rest)
        elif name == "COPY":
            *sources, target = rest.split()
            assert target.startswith("/")
            assert any(list(artifact.glob(source)) for source in sources), rest
        elif name in ("CMD", "HEALTHCHECK"):
            command = json.loads(rest[rest.index("[") :])
            assert command[0] in ("edgepress", "python")
    command = json.loads(dict(instructions)["CMD"])
    assert set(command[3::2]) <= {option for parameter in serve.params for option in parameter.opts}


def test_a_wheelhouse_for_no_version_of_python_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no wheel for one version of Python\. Run 'edgepress wheelhouse"):
        find_wheel_python(tmp_path)
