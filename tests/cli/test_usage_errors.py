"""Wrong arguments: each is answered in our own words, with the option's name, the value, and what to do."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from edgepress.cli.main import main


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("squeeze", "'edgepress' has no command 'squeeze'; known: convert, plan, "),
        ("recipes shw", "'edgepress recipes' has no command 'shw'; did you mean 'show'?"),
        ("evaluate repot x", "'edgepress evaluate' has no command 'repot'; did you mean 'report'?"),
        ("quantize --methd x", "'edgepress quantize' has no option '--methd'; did you mean '--method'?"),
        ("info -1", "Before an argument that begins with '-', put '--'."),
        ("info", "PATH is missing. Give it to 'edgepress info'."),
        ("info a b", "'edgepress info' takes one argument, and 'b' is one more. Leave it out"),
        ("quantize", "--recipe is missing. Give it as --recipe NAME|FILE to 'edgepress quantize'."),
        ("quantize --recipe", "--recipe has no value. Give it as --recipe NAME|FILE."),
        ("evaluate --pairs a", "--pairs needs 2 values. Give it as --pairs DIR DIR."),
        ("info a --json=1", "--json takes no value. Leave out what follows '='."),
        ("bench a --images 1e3", "--images: '1e3' is not a whole number of at least 1. Give one, such as 1."),
        ("bench a --steps 0", "--steps: '0' is not a whole number from 1 to "),
        ("generate a --prompt x -o a.png --guidance nan", "--guidance: 'nan' is not a number from 0 to 1000. Give one"),
        ("plan --recipe pi5 --memory inf", "--memory: 'inf' is not a number above 0 and up to 1048576. Give one"),
        ("plan --recipe pi5 --size 0x64", "--size: '0x64' is not a size. Write height and width like 512x768."),
        ("quantize --recipe pi5 --max-memory 0GiB", "--max-memory: '0GiB' is not a size. Write it like 6GiB"),
        ("export onnx --precision int5", "--precision: 'int5' is not known; did you mean 'int4'?"),
        ("quantize --recipe pi5 --recipe pi5", "--recipe is given 2 times, and has one value. Give it once."),
        ("bench a --seed 1 --seed=2", "--seed is given 2 times, and has one value. Give it once."),
        ("verify a --run --no-run", "--run and --no-run exclude each other. Give one."),
        ("verify a -q -v", "--quiet and --verbose exclude each other. Give one of them."),
        ("recipes --json show pi5", "--json before 'show' has no effect. Give it after 'show'."),
        ("evaluate --limit 2 report a", "--limit before 'report' has no effect. Leave it out."),
    ],
)
def test_wrong_arguments_are_answered_with_what_to_do(arguments: str, message: str) -> None:
    result = CliRunner().invoke(main, arguments.split(), prog_name="edgepress")
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1].startswith("Error: ")
    assert message in result.stderr


def test_a_value_of_the_environment_is_named_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEPRESS_THREADS", "2.5")
    result = CliRunner().invoke(main, ["generate", "a", "--prompt", "x", "-o", "a.png"], prog_name="edgepress")
    assert "the environment variable EDGEPRESS_THREADS: '2.5' is not a whole number" in result.stderr
    result = CliRunner().invoke(main, ["generate", "a", "--prompt", "x", "-o", "a.png", "--threads", "3.5"])
    assert "--threads: '3.5' is not a whole number" in result.stderr


@pytest.mark.parametrize("arguments", ["recipes show pi5 --json --json", "recipes -q show pi5"])
def test_what_has_an_effect_is_accepted(arguments: str) -> None:
    assert CliRunner().invoke(main, arguments.split()).exit_code == 0


def test_a_number_of_thousands_of_digits_is_shown_in_short() -> None:
    result = CliRunner().invoke(main, ["bench", "a", "--images", "9" * 5000])
    assert result.exit_code == 2
    assert f"--images: '{'9' * 60}…' is not a whole number" in result.stderr


@pytest.mark.parametrize("value", [" ", "\n", "\t "])
def test_a_blank_argument_is_refused(value: str) -> None:
    result = CliRunner().invoke(main, ["quantize", "--recipe", value])
    assert "The argument after --recipe is blank. Give a value, or leave it out." in result.stderr
