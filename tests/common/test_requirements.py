"""A missing package is a sentence that says what to install."""

from __future__ import annotations

import pytest

from edgepress.common.errors import UserError
from edgepress.common.requirements import missing_package, requires_extra


def missing(name: str | None) -> ModuleNotFoundError:
    return ModuleNotFoundError(f"No module named {name!r}", name=name)


def test_the_package_of_a_missing_module_is_named() -> None:
    assert str(missing_package(missing("torch.nn"), "quantize")) == (
        "This needs the package 'torch', which is not installed. Run: pip install 'edgepress[quantize]'"
    )


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
