"""`import edgepress`: light, lazy, complete; and what happens where packages are missing."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.small_artifact import write_small_artifact
from PIL import Image

import edgepress

HEAVY = ("torch", "diffusers", "transformers", "numpy", "pydantic", "click", "onnx")


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_importing_is_light() -> None:
    code = f"import sys, edgepress; print([name for name in {HEAVY} if name in sys.modules])"
    assert run_python(code).stdout.strip() == "[]"


def test_importing_takes_a_tenth_of_a_second_of_cpu_at_most() -> None:
    code = "import time; start = time.process_time(); import edgepress; print(time.process_time() - start)"
    assert min(float(run_python(code).stdout) for _ in range(3)) < 0.1


@pytest.mark.slow
def test_a_fresh_home_stays_empty(tmp_path: Path) -> None:
    """Importing ONNX Runtime would write a device ID and telemetry into it, and a session ID beside temporary files."""
    write_small_artifact(tmp_path / "artifact")
    home, temporary = tmp_path / "home", tmp_path / "temporary"
    home.mkdir()
    temporary.mkdir()
    variables = {
        key: value for key, value in os.environ.items() if not key.startswith("XDG_") and "TELEMETRY" not in key
    }
    options = ["--prompt", "a wall", "--steps", "1", "--size", "32x48", "-o", str(tmp_path / "a.png")]
    command = [sys.executable, "-m", "edgepress", "generate", str(tmp_path / "artifact"), *options]
    variables |= {"HOME": str(home), "TMPDIR": str(temporary)}
    process = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    assert [*home.rglob("*"), *temporary.rglob("*")] == []


def test_every_public_name_is_there() -> None:
    for name in edgepress.__all__:
        assert getattr(edgepress, name) is not None
    assert set(edgepress.__all__) <= set(dir(edgepress))


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'press'"):
        edgepress.press  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.slow
@pytest.mark.parametrize(
    "first", ["import edgepress.quantize.plan", "import edgepress.evaluate.plan", "edgepress.quantize"]
)
def test_packages_are_functions_whatever_was_imported_first(first: str) -> None:
    code = f"""
import edgepress
{first}
import edgepress.quantize.plan as plan
from edgepress.evaluate import plan as other_plan
assert callable(edgepress.quantize) and callable(edgepress.evaluate)
assert edgepress.quantize.plan is plan and plan.__name__ == "edgepress.quantize.plan"
try:
    edgepress.quantize("toaster")
except edgepress.UserError as error:
    print(error)
"""
    assert run_python(code).stdout.startswith("There is no recipe 'toaster'")


def test_help_knows_the_signatures() -> None:
    assert list(inspect.signature(edgepress.quantize).parameters)[:3] == ["recipe", "model", "output"]
    assert "model" in inspect.signature(edgepress.evaluate).parameters


BLOCKER = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocker())
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "missing", "extra"),
    [
        (["quantize", "--recipe", "pi5"], "torch", "quantize"),
        (["export", "onnx", "--recipe", "pi5", "--model", "demo", "--precision", "fp32"], "onnx_ir", "export"),
        (["export", "rknn", "--recipe", "rk3588"], "torch", "export"),
        (["evaluate", "--pairs", "images", "images"], "skimage", "evaluate"),
        (["generate", "artifact", "--prompt", "a", "-o", "a.png"], "onnxruntime", "runtime"),
    ],
)
def test_a_missing_package_is_a_sentence(arguments: list[str], missing: str, extra: str, tmp_path: Path) -> None:
    code = BLOCKER.format(blocked={missing}) + f"from edgepress.cli.main import main; main({arguments!r})"
    (tmp_path / "images").mkdir()
    Image.effect_noise((16, 16), 50).convert("RGB").save(tmp_path / "images" / "a.png")
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path, timeout=120
    )
    assert result.returncode == 2, result.stderr
    assert f"Error: This needs the package '{missing}', which is not installed." in result.stderr
    assert f"pip install 'edgepress[{extra}]'" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["recipes"], ["recipes", "show", "pi5"], ["info", "DEMO"]]
)
def test_a_board_without_the_toolchain_has_these(arguments: list[str]) -> None:
    from edgepress.pipelines.hub import DEMO_PIPELINE

    given = [str(DEMO_PIPELINE) if argument == "DEMO" else argument for argument in arguments]
    blocked = {
        "torch",
        "diffusers",
        "transformers",
        "onnx",
        "onnx_ir",
        "onnxscript",
        "rapidocr",
        "skimage",
        "safetensors",
    }
    code = BLOCKER.format(blocked=blocked) + f"from edgepress.cli.main import main; main({given!r})"
    result = run_python(code)
    assert result.returncode == 0, result.stderr


def test_python_dash_m_is_the_command() -> None:
    result = subprocess.run([sys.executable, "-m", "edgepress", "--help"], capture_output=True, text=True, check=True)
    assert result.stdout.startswith("Usage: edgepress ")
