"""A missing package is a sentence that says what to install."""

from __future__ import annotations

import importlib
from importlib.metadata import PackageNotFoundError
from itertools import pairwise
from pathlib import Path

import pytest

from edgepress.common.errors import UserError
from edgepress.common.requirements import missing_package, reject_failed_import, requires_extra


def missing(name: str | None) -> ModuleNotFoundError:
    return ModuleNotFoundError(f"No module named {name!r}", name=name)


def test_the_package_of_a_missing_module_is_named() -> None:
    assert str(missing_package(missing("torch.nn"), "quantize")) == (
        "This needs the package 'torch', which is not installed. Run: pip install 'edgepress[quantize]'"
    )


def test_a_missing_distribution_is_named_by_its_own_name() -> None:
    """As transformers raises it: importlib's error takes what it is given for a name."""
    error = PackageNotFoundError("The 'filelock' distribution was not found and is required by this application.")
    assert str(missing_package(error, "all")).startswith("This needs the package 'filelock', which is not installed.")


def test_a_library_that_imports_on_demand_hides_the_name_in_the_cause() -> None:
    @requires_extra("evaluate")
    def load() -> None:
        try:
            raise missing("torchvision")
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError("Could not import module 'Processor'.") from error

    with pytest.raises(UserError, match=r"the package 'torchvision'.*edgepress\[evaluate\]"):
        load()


@pytest.mark.parametrize("name", ["edgepress.nothing", "json.nothing", None])
def test_a_module_that_is_no_package_to_install_is_a_defect(name: str | None) -> None:
    error = missing(name)
    assert missing_package(error, "all") is error


def raise_from(*errors: Exception) -> Exception:
    """The last of some errors, each of which was raised from the one before."""
    for cause, error in pairwise(errors):
        error.__cause__ = cause
    return errors[-1]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            ImportError("cannot import name 'x' from 'transformers' (unknown location)", name="transformers"),
            r"^The package transformers cannot be imported \(cannot import name 'x' .*\)\. Install it again",
        ),
        (
            raise_from(
                ImportError("libfoo.so: cannot open\nshared object", name="tokenizers.tokenizers"),
                ModuleNotFoundError("Could not import module 'Qwen3Model'."),
            ),
            r"^The package tokenizers cannot be imported \(libfoo\.so: cannot open\)",
        ),
        (
            raise_from(
                AttributeError("module 'torch' has no attribute 'xpu'"),
                RuntimeError("Failed to import diffusers.models.x because of the following error"),
            ),
            r"^A package cannot be imported \(module 'torch' has no attribute 'xpu'\)",
        ),
        (
            raise_from(
                missing("einops"), RuntimeError("Failed to import diffusers.models.x because of"), ValueError("x")
            ),
            r"^This needs the package 'einops', which is not installed",
        ),
        (
            ImportError(
                "\nXProcessor requires the Torchvision library but it was not found in your environment. Check"
            ),
            r"^This needs the package 'torchvision', which is not installed\. Install it with pip\.$",
        ),
        (
            ImportError(
                "X requires the Beautiful Soup library but it was not found in your environment. You can install it "
                "with pip:\n`pip install beautifulsoup4`. Please note"
            ),
            r"^This needs the package 'beautifulsoup4', which is not installed",
        ),
        (
            ImportError("`some_guard` is not installed. Please install it: `pip install some_guard`."),
            r"^This needs the package 'some_guard', which is not installed",
        ),
    ],
)
def test_a_package_that_cannot_be_imported_is_named(error: Exception, message: str) -> None:
    with pytest.raises(UserError, match=message):
        reject_failed_import(error)


@pytest.mark.parametrize(
    "error", [ValueError("x"), RuntimeError("x"), AttributeError("x"), missing("edgepress.nothing"), missing("json.x")]
)
def test_other_errors_are_left_to_the_caller(error: Exception) -> None:
    reject_failed_import(error)


@pytest.mark.parametrize("value", ["abc", "", "1.5"])
def test_an_environment_variable_that_a_package_cannot_read_is_named(
    value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "reads_a_number.py").write_text("import os\nBUILT = int(os.environ.get('BUILD_EPOCH', 0))\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("BUILD_EPOCH", value)
    with pytest.raises(ValueError, match="invalid literal") as raised:
        importlib.import_module("reads_a_number")
    message = f"the environment variable BUILD_EPOCH has the value '{value}', which it cannot read. Correct it"
    with pytest.raises(UserError, match=message):
        reject_failed_import(raised.value)


def test_a_number_that_a_function_cannot_read_is_left_to_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUILD_EPOCH", "abc")
    with pytest.raises(ValueError, match="invalid literal") as raised:
        int({"BUILD_EPOCH": "abc"}["BUILD_EPOCH"])
    reject_failed_import(raised.value)
