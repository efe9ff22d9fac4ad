"""No damaged file ends in anything but success or a sentence; `make fuzz` tries fifty times as many."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings

from edgepress.benchmarks.reliability.fuzz import MAX_BYTES, TooSlowError, fuzz_reader
from edgepress.benchmarks.reliability.mutations import FORMATS, damaged
from edgepress.benchmarks.reliability.readers import READERS, Reader
from edgepress.common.errors import UserError

CASES = 200
VALID = b'{"x": {"y": [1, 2]}, "z": "text"}'


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Readers log what they take."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_damaged_files_end_in_success_or_a_sentence(name: str) -> None:
    report = fuzz_reader(READERS[name], CASES, random_seed=0)
    assert report.read + report.refused == report.cases >= CASES
    assert report.read > 0


@pytest.mark.parametrize("name", READERS)
def test_the_files_that_are_damaged_are_valid(name: str, tmp_path: Path) -> None:
    reader = READERS[name]
    for path, content in reader.make_files().items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(content)
    for path, _ in reader.targets:
        reader.read(tmp_path, tmp_path / path)


def make_reader(read: Callable[[bytes], object]) -> Reader:
    return Reader("x", lambda: {"x": VALID}, [("x", "json")], lambda _, file: read(file.read_bytes()))


@pytest.mark.slow
def test_another_exception_is_found() -> None:
    with pytest.raises((TypeError, KeyError)):
        fuzz_reader(make_reader(lambda content: json.loads(content)["x"]["y"] if b'"x"' in content else 0), CASES, 0)


def test_too_much_memory_is_found() -> None:
    with pytest.raises(MemoryError):
        fuzz_reader(make_reader(lambda _: bytes(2 * MAX_BYTES)), 1, 0)


def test_too_much_time_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgepress.benchmarks.reliability.fuzz.MAX_SECONDS", 0.01)

    def read(_: bytes) -> None:
        while True:
            pass

    with pytest.raises(TooSlowError):
        fuzz_reader(make_reader(read), 1, 0)


class SeveralLinesError(UserError):
    """A message that is not escaped."""

    def __str__(self) -> str:
        return "a list:\n- x"


def test_a_message_of_several_lines_is_found() -> None:
    def read(_: bytes) -> None:
        raise SeveralLinesError("x")

    with pytest.raises(AssertionError, match="not one line"):
        fuzz_reader(make_reader(read), 1, 0)


@pytest.mark.parametrize("file_format", FORMATS)
def test_formats_are_written_as_they_are_read(file_format: str) -> None:
    files = [
        (reader.make_files()[path], FORMATS[target])
        for reader in READERS.values()
        for path, target in reader.targets
        if target == file_format
    ]
    assert files
    for content, known in files:
        tree = known.parse(content)
        assert known.parse(known.dump(tree)) == tree


@pytest.mark.slow
def test_equal_seeds_give_equal_cases() -> None:
    def list_cases(random_seed: int) -> list[bytes]:
        seen: list[bytes] = []
        fuzz_reader(make_reader(seen.append), 50, random_seed)
        return seen

    assert list_cases(1) == list_cases(1) != list_cases(2)


@given(damaged(VALID, "json"))
@settings(max_examples=50)
def test_damage_is_made_of_any_valid_file(content: bytes) -> None:
    assert isinstance(content, bytes)


@pytest.mark.slow
def test_damaged_structures_are_often_readable() -> None:
    """Else only the parser would be tried, and never what reads the values."""
    seen: list[bool] = []

    def read(content: bytes) -> None:
        try:
            json.loads(content)
            seen.append(True)
        except (ValueError, RecursionError):
            seen.append(False)

    fuzz_reader(make_reader(read), CASES, 0)
    assert sum(seen) > CASES / 3
