"""`edgepress quantize`: its options and its tables."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from edgepress.cli.main import main
from edgepress.cli.parameter_types import ByteSize
from edgepress.quantize.pipeline import quantize_pipeline
from edgepress.recipes.loader import load_recipe
from edgepress.storage.manifest import Manifest, read_manifest

RECIPE = """
device: test
quantize: {steps: [gptq], components: [text_encoder], embeddings: int8}
calibration: {count: 1, steps: 1}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    return path


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "artifact"


def run(recipe: Path, source: Path, output: Path, *more: str) -> Result:
    arguments = ["quantize", "--recipe", str(recipe), "--model", str(source), "--output", str(output), *more]
    return CliRunner().invoke(main, arguments)


def manifest_of(output: Path) -> Manifest:
    manifest = read_manifest(output)
    assert manifest is not None
    return manifest


def rows(printed: str) -> dict[str, list[str]]:
    """The rows of all tables by their first cell."""
    cells = [[cell.strip() for cell in re.split("[│┃]", line)[1:-1]] for line in printed.splitlines()]
    return {row[0]: row[1:] for row in cells if row}


def megabytes(size: int) -> str:
    return f"{size / 1e6:.2f}"


@pytest.mark.parametrize("name", ["SHA256SUMS", "timings.json", "local.json"])
def test_the_users_files_are_not_replaced(name: str, recipe: Path, tiny: Path, output: Path) -> None:
    output.mkdir()
    (output / name).write_text("mine")
    result = run(recipe, tiny, output, "--force", "--restart")
    assert result.exit_code == 2
    assert f"{output / name} was not made by edgepress" in result.stderr
    assert {path.name: path.read_text() for path in output.iterdir()} == {name: "mine"}


# ---------------------------------------------------------------- tables


def test_the_tables_show_sizes_and_what_saved_them(recipe: Path, tiny: Path, output: Path) -> None:
    result = run(recipe, tiny, output)
    assert result.exit_code == 0, result.output
    assert "memory" not in result.stderr
    manifest, shown = manifest_of(output), rows(result.stdout)
    for component, size in manifest.sizes.items():
        assert shown[component][:2] == [megabytes(size["before"]), megabytes(size["after"])]
    before, after = (sum(size[when] for size in manifest.sizes.values()) for when in ("before", "after"))
    assert shown["all"] == [megabytes(before), megabytes(after), f"{after / before:.0%}"]
    saved = manifest.size_savings["text_encoder"]
    assert [measure for measure, size in saved.items() if size] == [
        "4-bit linears",
        "8-bit embeddings",
        "unused modules",
    ]
    for measure, size in saved.items():
        assert shown.get(measure) == ([megabytes(size)] if size else None)


def test_the_tables_show_layers_and_the_error_after_each_step(recipe: Path, tiny: Path, output: Path) -> None:
    result = run(recipe, tiny, output)
    shown, layers = rows(result.stdout), manifest_of(output).layers
    assert "Steps: gptq" in result.stdout
    assert shown["layers quantized"] == [str(len(layers))] == ["14"]
    assert shown["bits per weight"] == ["4.156"]
    for step, name in (("rtn", "rounding to nearest"), ("gptq", "after gptq")):
        mean = sum(layer["steps"][step] for layer in layers) / len(layers)
        assert shown[f"mean output error, {name}"] == [f"{mean:.3%}"]
    assert "quantizing" in shown
    assert str(output / "model") in result.stdout.replace("\n", "")


def test_a_table_shows_what_quantized_activations_cost_and_which_layers_stay_in_floats(
    recipe: Path, tiny: Path, output: Path
) -> None:
    grid = "bits: 8, group_size: channel, symmetric: true, narrow_range: true"
    scheme = f"{{{grid}, activations: dynamic, max_output_error: 8.5e-5}}"
    recipe.write_text(RECIPE.replace("steps: [gptq]", f"method: rtn, extra_schemes: {{w8a8: {scheme}}}"))
    result = run(recipe, tiny, output)
    shown, layers = (
        rows(result.stdout[result.stdout.index("w8a8: activations") :]),
        manifest_of(output).extra_scheme_layers["w8a8"],
    )
    floats = [layer for layer in layers if layer["stays_float"]]
    assert shown["layers in 8 bits"] == [str(len(layers) - len(floats))]
    assert 0 < len(floats) < len(layers)
    for step, name in (("rtn", "rounding to nearest"), ("smooth", "smoothed"), ("solved", "in the end")):
        assert shown[f"mean output error, {name}"] == [
            f"{sum(layer['steps'][step] for layer in layers) / len(layers):.3%}"
        ]
    for layer in floats:
        assert shown[f"stays in floats: {layer['layer']}"] == [f"{layer['error']:.3%}"]


def test_a_second_run_does_nothing_and_restart_quantizes_again(recipe: Path, tiny: Path, output: Path) -> None:
    assert "up to date" not in run(recipe, tiny, output).stdout
    created = (output / "manifest.json").stat().st_mtime_ns
    second = run(recipe, tiny, output)
    assert second.exit_code == 0
    assert "is up to date; nothing was done" in " ".join(second.stdout.split())
    assert "Size in MB" in second.stdout
    assert "Time of this run" not in second.stdout
    assert (output / "manifest.json").stat().st_mtime_ns == created
    again = run(recipe, tiny, output, "--restart")
    assert again.exit_code == 0
    assert "up to date" not in again.stdout
    assert "Time of this run" in again.stdout
    assert (output / "manifest.json").stat().st_mtime_ns > created


# ---------------------------------------------------------------- options


def test_a_method_overrides_the_recipes_steps(recipe: Path, tiny: Path, output: Path) -> None:
    result = run(recipe, tiny, output, "--method", "rtn")
    assert result.exit_code == 0, result.output
    assert "Steps: rounding to nearest" in result.stdout
    quantize = manifest_of(output).recipe["quantize"]
    assert (quantize["method"], quantize["steps"]) == ("rtn", None)
    assert all(list(layer["steps"]) == ["rtn"] for layer in manifest_of(output).layers)


def test_methods_are_those_of_recipes() -> None:
    result = CliRunner().invoke(main, ["quantize", "--recipe", "orin", "--method", "magic"])
    assert result.exit_code == 2
    assert "--method: 'magic' is not known; known: rtn, awq, gptq, best." in result.stderr


@pytest.mark.parametrize(
    ("text", "size"),
    [("6GiB", 6 * 2**30), ("500MB", 500_000_000), ("1.5 TiB", 3 * 2**39), ("64KiB", 65536), ("2GB", 2_000_000_000)],
)
def test_memory_is_given_with_a_unit(text: str, size: int) -> None:
    assert ByteSize().convert(text, None, None) == size


@pytest.mark.parametrize("text", ["6", "6G", "GiB", "-1GiB", "six GiB", "6gib", "6GiB!", "1,5GiB"])
def test_any_other_text_is_refused_with_an_example(text: str) -> None:
    result = CliRunner().invoke(main, ["quantize", "--recipe", "orin", f"--max-memory={text}"])
    assert result.exit_code == 2
    assert f"{text!r} is not a size. Write it like 6GiB or 500MB." in " ".join(result.stderr.split())


def test_too_little_memory_for_the_widest_input_is_a_warning(recipe: Path, tiny: Path, output: Path) -> None:
    result = run(recipe, tiny, output, "--max-memory", "1KB")
    assert result.exit_code == 0
    assert "Warning: Quantizing inputs of width 256 takes about 1.0 GiB, more than the limit of" in result.stderr
    assert len(manifest_of(output).layers) == 14


def test_help_shows_the_default_memory() -> None:
    printed = CliRunner().invoke(main, ["quantize", "--help"]).stdout
    assert re.search(r"--max-memory SIZE .*\[default: +6GiB\]", " ".join(printed.split()))
    assert "--restart" in printed


# ---------------------------------------------------------------- interrupted work


def interrupted(recipe: Path, tiny: Path, output: Path) -> None:
    def interrupt(stage: str, done: int, _: int) -> None:
        if (stage, done) == ("quantizing", 1):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quantize_pipeline(load_recipe(str(recipe)), tiny, output, progress=interrupt)


def test_unfinished_work_of_something_else_is_a_warning(recipe: Path, tiny: Path, output: Path) -> None:
    interrupted(recipe, tiny, output)
    (work,) = (path for path in output.glob(".work/*") if path.is_dir())
    result = run(recipe, tiny, output, "--method", "rtn")
    assert result.exit_code == 0
    reason = "cannot be resumed, because these inputs have changed: recipe. It is deleted when this run finishes."
    assert f"Warning: Unfinished work in {work} {reason}\n" in result.stderr
    assert "Unfinished" not in result.stdout


def test_unfinished_work_is_resumed(recipe: Path, tiny: Path, output: Path) -> None:
    interrupted(recipe, tiny, output)
    (block,) = output.glob(".work/*/blocks/*.safetensors")
    result = run(recipe, tiny, output)
    assert result.exit_code == 0
    assert "Unfinished" not in result.stderr
    assert not block.exists()


def test_each_step_has_a_row_though_some_layers_skip_it(tiny: Path, tmp_path: Path) -> None:
    """Queries and keys are never clipped, and they come first."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE.replace("gptq", "clip"))
    result = run(recipe, tiny, tmp_path / "artifact")
    assert result.exit_code == 0, result.output
    shown = rows(result.output)
    layers = manifest_of(tmp_path / "artifact").layers
    mean = sum(layer["steps"].get("clip", layer["steps"]["rtn"]) for layer in layers) / len(layers)
    assert shown["mean output error, after clip"] == [f"{mean:.3%}"]


def test_a_vae_alone_has_no_layers_to_show(tiny: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("device: test\nquantize: {components: [vae]}\n")
    result = run(recipe, tiny, tmp_path / "artifact")
    assert result.exit_code == 0, result.output
    assert rows(result.output)["layers quantized"] == ["0"]


def test_loras_are_named_by_option(recipe: Path, tiny: Path, output: Path) -> None:
    """A wrong one is a sentence with exit code 2; the help says how to give a weight."""
    result = run(recipe, tiny, output, "--lora", "first.safetensors", "--lora", "second.safetensors:0.5")
    assert result.exit_code == 2
    assert result.stderr.endswith(
        "There is no LoRA first.safetensors. Give a .safetensors file or a folder with one.\n"
    )
    assert not output.exists()
    assert "--lora PATH[:WEIGHT]" in CliRunner().invoke(main, ["quantize", "--help"]).output
