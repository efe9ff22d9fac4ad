"""Fingerprints of source code: they change with every file that a module's results depend on, and with no other."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from edgepress.common.code_fingerprint import PACKAGE, ROOT, code_fingerprint, model_modules

MODULE = sys.modules[code_fingerprint.__module__]
TEXT = "edgepress.evaluate.metrics.text"


@pytest.fixture
def source_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the package's source, of which fingerprints are computed."""
    ignored = shutil.ignore_patterns("assets", "__pycache__", "pipeline", "clip", "prompts")
    for name in ("common", "evaluate", "models", "numerics", "pipelines", "quantize", "recipes", "runtime", "storage"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("assets", "__pycache__"))
    shutil.copytree(ROOT / "prompts", tmp_path / "prompts", ignore=ignored)
    for file in ROOT.glob("*.py"):
        shutil.copy(file, tmp_path)
    monkeypatch.setattr(MODULE, "ROOT", tmp_path)
    code_fingerprint.cache_clear()
    yield tmp_path
    code_fingerprint.cache_clear()


def changes_with(source_copy: Path, file: str, *modules: str, shallow: str | None = None) -> bool:
    """Whether the fingerprint of modules changes when a file gets another comment."""
    before = code_fingerprint(*modules, shallow=shallow)
    with (source_copy / file).open("a") as stream:
        stream.write("# changed\n")
    code_fingerprint.cache_clear()
    return code_fingerprint(*modules, shallow=shallow) != before


@pytest.mark.parametrize(
    "file",
    ["evaluate/metrics/text.py", "evaluate/backends/text_matching.py", "evaluate/backends/ocr.py", "prompts/prompt.py"],
)
def test_a_metric_depends_on_what_it_imports(source_copy: Path, file: str) -> None:
    assert changes_with(source_copy, file, TEXT)


@pytest.mark.parametrize("file", ["evaluate/metrics/ssim.py", "evaluate/backends/clip/embedder.py", "quantize/plan.py"])
def test_a_metric_does_not_depend_on_other_modules(source_copy: Path, file: str) -> None:
    assert not changes_with(source_copy, file, TEXT)


@pytest.mark.parametrize(
    "file",
    [
        "pipelines/hf_quantizers.py",
        "pipelines/quantized_modules.py",
        "numerics/awq_packing.py",
        "numerics/int4_matmul.py",
        "pipelines/sampling.py",
    ],
)
def test_images_of_diffusers_depend_on_the_loader(source_copy: Path, file: str) -> None:
    assert changes_with(source_copy, file, "edgepress.pipelines.sampling")


@pytest.mark.parametrize(
    "file", ["runtime/noise.py", "models/z_image/host.py", "models/z_image/npu_host.py", "models/registry.py"]
)
def test_images_of_graphs_depend_on_the_runtime_and_on_all_families(source_copy: Path, file: str) -> None:
    assert changes_with(source_copy, file, "edgepress.runtime.pipeline")


@pytest.mark.parametrize("file", ["quantize/plan.py", "models/flux/family.py", "quantize/algorithms/gptq.py"])
def test_quantization_depends_on_algorithms_and_families(source_copy: Path, file: str) -> None:
    assert changes_with(source_copy, file, "edgepress.quantize.pipeline")


def test_imports_for_type_checkers_do_not_count(source_copy: Path) -> None:
    """The package's root imports the whole interface for them."""
    assert changes_with(source_copy, "__init__.py", "edgepress")
    assert not changes_with(source_copy, "runtime/pipeline.py", "edgepress")


def test_imports_of_a_shallow_module_do_not_count(source_copy: Path) -> None:
    shallow = "edgepress.evaluate.generation.generators"
    assert changes_with(source_copy, "evaluate/generation/generators.py", TEXT, shallow=shallow)
    assert not changes_with(source_copy, "evaluate/generation/candidates.py", TEXT, shallow=shallow)


def test_modules_outside_the_package_do_not_count() -> None:
    assert code_fingerprint("numpy") == code_fingerprint("no.such.module") == code_fingerprint()


def test_all_modules_of_models_are_listed() -> None:
    modules = model_modules()
    assert {f"{PACKAGE}.models", f"{PACKAGE}.models.base.family", f"{PACKAGE}.models.z_image.npu_graphs"} <= set(
        modules
    )
    assert import_module(modules[0]) is not None


NESTED_IMPORTS = """
class A:
    def f(self):
        for _ in ():
            with a:
                if b:
                    pass
                elif c:
                    from . import in_branch
try:
    pass
except ValueError:
    from . import in_handler
else:
    from . import in_else
finally:
    from . import in_finally
match x:
    case 1:
        from . import in_case
"""


def test_imports_count_in_every_statement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODULE, "ROOT", tmp_path)
    (tmp_path / "outer.py").write_text(NESTED_IMPORTS)
    names = [line.split()[-1] for line in NESTED_IMPORTS.splitlines() if "import" in line]
    assert len(names) == 5
    for name in names:
        before = code_fingerprint(f"{PACKAGE}.outer")
        code_fingerprint.cache_clear()
        (tmp_path / f"{name}.py").touch()
        assert code_fingerprint(f"{PACKAGE}.outer") != before, name
    code_fingerprint.cache_clear()
