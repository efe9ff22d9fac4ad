from __future__ import annotations

import inspect
import statistics
import sys
from types import ModuleType

import pytest

from edgepress.common.callable_package import make_callable


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A package that is named after nothing, and is called as `statistics.median`."""
    package = ModuleType("some_package")
    monkeypatch.setitem(sys.modules, "some_package", package)
    make_callable("some_package", "statistics", "median")
    return package


def test_a_package_is_called_like_its_function(package: ModuleType) -> None:
    assert callable(package)
    assert package([3, 1, 2]) == 2
    assert package(data=[4, 2]) == 3
    assert inspect.signature(package) == inspect.signature(statistics.median)


def test_it_stays_a_module(package: ModuleType) -> None:
    assert isinstance(package, ModuleType)
    assert inspect.ismodule(package)
    assert package.__name__ == "some_package"


def test_the_functions_module_is_imported_by_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    package = ModuleType("other_package")
    monkeypatch.setitem(sys.modules, "other_package", package)
    make_callable("other_package", "absent_module", "function")
    assert callable(package)
    with pytest.raises(ModuleNotFoundError, match="absent_module"):
        package()
