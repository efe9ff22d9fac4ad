"""The benchmark of full-size quantization, with a script in place of edgepress."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from safetensors.torch import load_file

from edgepress.benchmarks.common.process import Cost
from edgepress.benchmarks.quantization import full_size
from edgepress.benchmarks.quantization.full_size import QuantizeRun
from edgepress.quantize.pipeline import quantize_pipeline
from edgepress.recipes.loader import load_recipe

COST = Cost(
    seconds=90.0,
    cpu=150.0,
    peak_rss=5_500_000_000,
    peak_anonymous=4_000_000_000,
    peak_mapped=1_500_000_000,
    disk_bytes_read=20_000_000_000,
    disk_bytes_written=3_400_000_000,
    total_bytes_read=40_000_000_000,
    total_bytes_written=3_500_000_000,
)
STAGE_SECONDS = {"calibrating": 30.0, "solving": 90.0}
LAYERS = [{"layer": "a", "rtn_error": 0.01, "error": 0.001}, {"layer": "b", "rtn_error": 0.001, "error": 0.0001}]
ARTIFACT_SCRIPT = """
import json, sys
from pathlib import Path

output = Path(sys.argv[sys.argv.index("--output") + 1])
output.mkdir()
manifest = {"recipe": {"quantize": {"method": "best"}}, "sizes": {"transformer": {"before": 200, "after": 50}},
            "layers": [{"rtn_error": 0.1, "error": 0.01}], "arguments": sys.argv[1:]}
(output / "manifest.json").write_text(json.dumps(manifest))
(output / "timings.json").write_text(json.dumps({"solving": 1.0}))
"""


def manifest(**more: Any) -> dict[str, Any]:
    sizes = {"transformer": {"before": 12_310_000_000, "after": 3_400_000_000}}
    return {"recipe": {"quantize": {"method": "best"}}, "sizes": sizes, "layers": LAYERS, **more}


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replaces edgepress with a script that writes an artifact."""
    script = tmp_path / "quantize.py"
    script.write_text(ARTIFACT_SCRIPT)
    measure_command = full_size.measure_command

    def measure_script(command: list[str], log: Path) -> Cost:
        return measure_command([sys.executable, str(script), *command[3:]], log)

    monkeypatch.setattr(full_size, "measure_command", measure_script)


def test_the_section_reports_cost_size_and_errors() -> None:
    body = full_size.render_component_section(
        QuantizeRun("transformer", "6GiB", 6_154_908_736, COST, manifest(), STAGE_SECONDS)
    )
    assert "full-size transformer" in body
    assert "6,154,908,736 parameters" in body
    assert "| wall time | 1.5 min |" in body
    assert "| peak RSS | 5.50 GB |" in body
    assert "| reduction | 72.4% |" in body
    assert "| mean layer error on calibration tokens, rounding only | -25.00 dB |" in body
    assert "| mean layer error on calibration tokens, as quantized | -35.00 dB (gain 10.00 dB) |" in body


def test_stages_are_reported_with_their_shares() -> None:
    body = full_size.render_component_section(QuantizeRun("transformer", "6GiB", 1, COST, manifest(), STAGE_SECONDS))
    assert "| calibrating | 30.0 s | 25% |" in body
    assert "| solving | 1.5 min | 75% |" in body


def test_exact_layers_have_no_decibels() -> None:
    assert full_size.mean_decibels([0.1, 0.0]) == pytest.approx(-10)
    assert full_size.mean_decibels([0.0]) == float("-inf")


def test_the_recipe_quantizes_one_component(tmp_path: Path) -> None:
    full_size.write_recipe("text_encoder", tmp_path / "recipe.yaml")
    recipe = yaml.safe_load((tmp_path / "recipe.yaml").read_text())
    assert recipe["device"] == "full-size"
    assert recipe["quantize"] == {"method": "best", "components": ["text_encoder"], "embeddings": "int8"}
    assert recipe["calibration"] == full_size.CALIBRATION


@pytest.mark.usefixtures("command")
def test_unfinished_work_is_removed_before_quantizing(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "quantized-transformer" / ".work").mkdir(parents=True)
    run = full_size.quantize_component("transformer", tiny, tmp_path, "6GiB")
    assert not (tmp_path / "quantized-transformer" / ".work").exists()
    assert run.num_parameters == full_size.count_parameters(tiny / "transformer") > 1e6
    arguments = run.manifest["arguments"]
    assert arguments[arguments.index("--max-memory") + 1] == "6GiB"
    assert arguments[arguments.index("--model") + 1] == str(tiny)
    assert run.cost.seconds > 0


@pytest.mark.usefixtures("command")
@pytest.mark.parametrize("keep", [True, False])
def test_the_command_reports_and_removes_its_files(
    keep: bool, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sections: list[tuple[str, ...]] = []
    monkeypatch.setattr(full_size, "write_section", lambda *section: sections.append(section[:2]))
    (tmp_path / "pipeline").symlink_to(tiny)
    arguments = ["--folder", str(tmp_path), "--component", "transformer", *(["--keep"] if keep else [])]
    result = CliRunner().invoke(full_size.main, arguments)
    assert result.exit_code == 0, result.output
    assert sections == [
        ("full-size-transformer", "make bench-full-size COMPONENT=transformer"),
        ("full-size-whole", "make bench-full-size COMPONENT=none"),
    ]
    assert "| reduction | 75.0% |" in result.output
    assert (tmp_path / "quantized-transformer").exists() == keep


def test_the_computed_size_is_that_of_a_quantized_pipeline(lean: Path, tmp_path: Path) -> None:
    recipe = {
        "device": "test",
        "dtype": "bfloat16",
        "quantize": {"method": "rtn", "components": list(full_size.RECIPE_COMPONENTS), "embeddings": "int8"},
        "calibration": {"count": 1, "steps": 1},
    }
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe))
    quantized = quantize_pipeline(load_recipe(str(file)), lean, tmp_path / "artifact").output / "model"
    row = next(line for line in full_size.render_size_section(lean).splitlines() if "total" in line)
    before, after = (
        sum(tensor.nbytes for file in folder.glob("*/*.safetensors") for tensor in load_file(file).values())
        for folder in (lean, quantized)
    )
    assert row.split("|")[-2].strip() == f"{1 - after / before:.1%}"
