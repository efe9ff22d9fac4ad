"""`optimum-cli export awq`: what optimum finds, what is published, and that it is `edgepress quantize`."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from argparse import ArgumentParser, Namespace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import get_args

import pytest
import yaml
from click.testing import CliRunner

import edgepress
from edgepress.cli.main import main
from edgepress.recipes.schema import METHOD_STEPS, QuantizationSettings, Recipe, Scheme

ROOT = Path(edgepress.__file__).resolve().parent
FILE = ROOT / "plugins" / "optimum" / "commands" / "register" / "register_edgepress.py"
NOT_BUILT_FROM = (".*", "build", "dist", "artifacts", "tests", "*.egg-info", "*.safetensors", "__pycache__", "runs")


def installed(name: str) -> bool:
    """Whether that distribution is there; the namespace `optimum` is, as soon as edgepress is."""
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True


with_optimum = pytest.mark.skipif(not installed("optimum"), reason="optimum is not installed: edgepress[optimum]")


def optimum_cli(
    *arguments: object, after: str = "pass", only: list[str] | None = None
) -> subprocess.CompletedProcess[str]:
    """A process of optimum-cli. after: code that runs when it leaves. only: what it sees as site-packages."""
    script = f"""
import sys
sys.path += {only or []!r}
from optimum.commands.optimum_cli import main
sys.argv = {["optimum-cli", *map(str, arguments)]!r}
try:
    main()
finally:
    {after}
"""
    flags = ["-S"] if only else []
    return subprocess.run([sys.executable, *flags, "-c", script], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def plugin() -> ModuleType:
    """The register file itself, wherever optimum would find it."""
    spec = importlib.util.spec_from_file_location("register_edgepress", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def parse(plugin: ModuleType, *arguments: object) -> Namespace:
    parser = ArgumentParser()
    plugin.AwqExport(parser.add_subparsers())
    return parser.parse_args(["awq", *map(str, arguments)])


def choices(plugin: ModuleType, option: str) -> tuple[object, ...]:
    parser = ArgumentParser()
    plugin.AwqExport.parse_args(parser)
    (available,) = [action.choices for action in parser._actions if option in action.option_strings]
    return tuple(available)


# ---------------------------------------------------------------- options


@with_optimum
def test_the_options_that_have_defaults_are_the_recipes_own(plugin: ModuleType) -> None:
    recipe = Recipe.model_validate(plugin.build_recipe(parse(plugin, "--model", "m", "--output", "o")))
    assert recipe == Recipe(device="generic")


@with_optimum
def test_what_can_be_chosen_is_what_recipes_know(plugin: ModuleType) -> None:
    assert choices(plugin, "--method") == tuple(METHOD_STEPS)
    sizes = [size for size in get_args(Scheme.model_fields["group_size"].annotation) if size != "channel"]
    assert choices(plugin, "--group-size") == tuple(sizes)


@with_optimum
def test_every_option_arrives(plugin: ModuleType, tmp_path: Path) -> None:
    given = "--model=m --output=o --dataset=p.jsonl --count=3 --steps=2 --bits=4 --group-size=64 --no-zero-point"
    args = parse(plugin, *given.split(), "--method=awq", "--memory=2GiB", "--force", "--restart", "--debug")
    recipe = Recipe.model_validate(yaml.safe_load(yaml.safe_dump(plugin.build_recipe(args))))
    scheme = Scheme(bits=4, group_size=64, symmetric=True)
    assert recipe.quantize == QuantizationSettings(method="awq", scheme=scheme)
    assert (recipe.calibration.prompts, recipe.calibration.count, recipe.calibration.steps) == ("p.jsonl", 3, 2)
    arguments = plugin.build_arguments(args, tmp_path / "awq.yaml")
    assert arguments[:2] == ["--debug", "quantize"]
    assert {"--model=m", "--output=o", "2GiB", "--force", "--restart"} <= set(arguments)


# ---------------------------------------------------------------- the command


@with_optimum
def test_optimum_finds_the_command_and_starts_light() -> None:
    """Register files are loaded whenever optimum-cli starts: neither edgepress nor torch may come with ours."""
    heavy = "sys.exit(9) if {'torch', 'diffusers', 'click', 'edgepress.cli.main'} & set(sys.modules) else None"
    result = optimum_cli("export", "awq", "--help", after=heavy)
    assert result.returncode == 0, result.stderr
    options = ("--model", "--dataset", "--bits", "--group-size", "--zero-point", "--output", "--method", "--memory")
    assert [option for option in options if option not in result.stdout] == []


@with_optimum
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "./nowhere"], "There is no model folder ./nowhere"),
        pytest.param(
            ["--model", "demo", "--dataset", "absent.jsonl"],
            "There is no prompt set or file 'absent.jsonl'",
            marks=pytest.mark.slow,  # looked up after torch is imported
        ),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(arguments: list[str], message: str, tmp_path: Path) -> None:
    result = optimum_cli("export", "awq", "--output", tmp_path / "out", *arguments)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    (last,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]  # bars may stand above it
    assert message in last
    assert result.stderr.endswith(f"{last}\n")


@with_optimum
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", ""], "argument -m/--model: it must not be empty."),
        (["--output", ""], "argument -o/--output: it must not be empty."),
        (["--bits", "3"], "argument --bits: invalid choice: 3"),
        (["--group-size", "100"], "argument --group-size: invalid choice: 100"),
        (["--count", "0"], "argument --count/--num-samples: '0' is not a number above 0."),
        (["--memory", "much"], "argument --max-memory/--memory: 'much' is not a size. Write it like 6GiB or 500MB."),
    ],
)
def test_wrong_usage_is_said_in_the_words_of_this_command(
    plugin: ModuleType, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        parse(plugin, "--model", "demo", "--output", "out", *arguments)
    assert left.value.code == 2
    assert message in capsys.readouterr().err


@with_optimum
@pytest.mark.slow
def test_the_weights_are_those_of_edgepress_quantize(plugin: ModuleType, lean: Path, tmp_path: Path) -> None:
    dataset = lean / "prompts" / "evaluation.jsonl"
    scheme = {"bits": 4, "group_size": 64, "symmetric": False}
    recipe = {
        "device": "board",
        "quantize": {"method": "awq", "scheme": scheme},
        "calibration": {"prompts": str(dataset), "count": 2, "steps": 2},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    ours, theirs = tmp_path / "edgepress", tmp_path / "optimum"
    arguments = ["quantize", "--recipe", str(tmp_path / "recipe.yaml"), "--model", str(lean), "--output", str(ours)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    arguments = (
        f"--model {lean} --dataset {dataset} --count 2 --steps 2 --method awq --group-size 64 --zero-point".split()
    )
    args = parse(plugin, *arguments, "--output", theirs)
    with pytest.raises(SystemExit) as left:
        args.func(args).run()
    assert left.value.code == 0
    names = sorted(path.relative_to(ours) for path in (ours / "model").rglob("*") if path.is_file())
    assert any(name.suffix == ".safetensors" for name in names)
    assert names == sorted(path.relative_to(theirs) for path in (theirs / "model").rglob("*") if path.is_file())
    assert [str(name) for name in names if (ours / name).read_bytes() != (theirs / name).read_bytes()] == []


# ---------------------------------------------------------------- what is published


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of a copy of the repository, without its weights; no network is asked."""
    pytest.importorskip("setuptools", "77", reason="building a wheel needs setuptools")
    source, built = tmp_path_factory.mktemp("source") / "edgepress", tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(*NOT_BUILT_FROM))
    flags = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(built)]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *flags, str(source)], check=True, capture_output=True)
    (wheels,) = built.glob("*.whl")
    return wheels


@pytest.mark.slow
def test_the_wheel_holds_the_register_file_and_nothing_else_of_optimum(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as content:
        outside = [name for name in content.namelist() if not name.startswith(("edgepress/", "edgepress-"))]
        (register,) = [name for name in content.namelist() if name.endswith("register_edgepress.py")]
        assert content.read(register) == FILE.read_bytes()
    assert outside == ["optimum/commands/register/register_edgepress.py"]


@pytest.mark.slow
def test_the_wheel_says_of_itself_that_it_is_edgepress_alone(wheel: Path) -> None:
    """diffusers takes whatever distribution names `optimum` as a top level for optimum-quanto."""
    with zipfile.ZipFile(wheel) as content:
        (named,) = [name for name in content.namelist() if name.endswith("/top_level.txt")]
        assert content.read(named).split() == [b"edgepress"]


@with_optimum
@pytest.mark.slow
def test_optimum_finds_the_command_of_an_installed_wheel(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as content:
        content.extractall(tmp_path)
    where = "print(sys.modules['optimum.commands.register.register_edgepress'].__file__)"
    libraries = sysconfig.get_path("purelib")  # named like this, its own editable edgepress is not seen
    result = optimum_cli("export", "awq", "--help", after=where, only=[str(tmp_path), libraries])
    assert result.returncode == 0, result.stderr
    assert str(tmp_path) in result.stdout
