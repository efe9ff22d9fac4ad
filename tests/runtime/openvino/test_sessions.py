"""OpenVINO on small graphs, held against ONNX Runtime. Those are skipped where openvino is not installed."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from helpers.small_artifact import write_small_artifact
from onnx import TensorProto, helper

from edgepress.cli.main import main
from edgepress.common.errors import UserError
from edgepress.runtime.generation_request import GenerationRequest
from edgepress.runtime.openvino.sessions import OpenVinoSessions
from edgepress.runtime.pipeline import ImagePipeline

needs_openvino = pytest.mark.skipif(find_spec("openvino") is None, reason="openvino is not installed")


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("artifact")
    write_small_artifact(folder)
    return folder


def test_a_missing_package_is_named(artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    arguments = ["generate", str(artifact), "--prompt", "x", "--engine", "openvino", "-o", str(tmp_path / "x.png")]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert (
        "This needs the package 'openvino', which is not installed. Run: pip install 'edgepress[openvino]'"
        in result.output
    )


def test_options_of_onnxruntime_are_refused(artifact: Path, tmp_path: Path) -> None:
    arguments = ["generate", str(artifact), "--prompt", "x", "--engine", "openvino", "--provider", "CPU"]
    result = CliRunner().invoke(main, [*arguments, "-o", str(tmp_path / "x.png")])
    assert result.exit_code == 2
    assert "--provider is for ONNX Runtime. Leave it out, or leave out --engine." in result.output


@needs_openvino
@pytest.mark.slow
def test_openvino_writes_no_identifier_into_the_home_folder(tmp_path: Path) -> None:
    code = "from edgepress.runtime.openvino.sessions import OpenVinoSessions; OpenVinoSessions({})"
    environment = {name: value for name, value in os.environ.items() if name != "CI"} | {"HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    assert not list(tmp_path.iterdir())


@needs_openvino
@pytest.mark.slow
def test_images_are_those_of_onnxruntime(artifact: Path) -> None:
    request = GenerationRequest("a sign", steps=2, size=(64, 96))
    engines = {name: ImagePipeline(artifact, engine=name) for name in ("onnxruntime", "openvino")}
    images = {name: np.asarray(pipeline.generate(request)).astype(int) for name, pipeline in engines.items()}
    assert np.abs(images["openvino"] - images["onnxruntime"]).max() <= 4  # bfloat16 where the processor has it
    assert engines["openvino"].engine.startswith("OpenVINO ")
    assert engines["openvino"].load_seconds > 0


@needs_openvino
def test_graphs_in_fp16_take_their_inputs_by_name(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["_to_copy"], to=TensorProto.FLOAT16),
        helper.make_node("Cast", ["y"], ["_to_copy_1"], to=TensorProto.FLOAT16),
        helper.make_node("Sub", ["_to_copy", "_to_copy_1"], ["difference"]),
        helper.make_node("Cast", ["difference"], ["out"], to=TensorProto.FLOAT),
    ]
    x, y, out = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in ("x", "y", "out"))
    model = helper.make_model(
        helper.make_graph(nodes, "fp16", [x, y], [out]), opset_imports=[helper.make_opsetid("", 21)]
    )
    onnx.save(model, tmp_path / "fp16.onnx")
    sessions = OpenVinoSessions({"fp16": tmp_path / "fp16.onnx"})
    difference = sessions("fp16", {"y": np.array([2.0, 8.0]), "x": np.array([5.0, 3.0])})
    np.testing.assert_array_equal(difference, [3.0, -5.0])


@needs_openvino
def test_wrong_graphs_are_named(artifact: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(b"no graph")
    sessions = OpenVinoSessions({"caption": artifact / "onnx" / "caption.onnx", "damaged": damaged}, keep_loaded=False)
    with pytest.raises(UserError, match=r"Graph 'other' is not in pipeline\.json, which lists caption, damaged"):
        sessions("other", {})
    with pytest.raises(UserError, match=r"is no graph 'caption': it takes .* instead of x"):
        sessions("caption", {"x": np.zeros(1)})
    with pytest.raises(UserError, match=r"OpenVINO .* cannot load .*damaged\.onnx"):
        sessions("damaged", {})
