"""Arguments of all public functions: whatever is given, the answer is a sentence, at once, with nothing written."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgepress
from edgepress.runtime.generation_request import GenerationRequest

NOWHERE = "./nowhere"  # no folder, file or Hub id: what is right in every respect but this one ends there
RECIPE = edgepress.Recipe(device="bench")
LIMIT_S = 2


class Path3:
    """A path of no known kind."""

    def __fspath__(self) -> bytes:
        return b"nowhere"


# What no parameter of the API takes.
WRONG_EVERYWHERE: dict[str, Any] = {
    "bytes": b"demo",
    "object": object(),
    "complex": 1j,
    "nan": float("nan"),
    "infinity": float("inf"),
    "set": {"demo"},
    "keys that are no text": {1: 2},
    "a list of lists of objects": [[object()]],
    "class": Path3,
    "module": inspect,
    "bytes path": Path3(),
    "array": np.zeros((2, 2)),
    "negative": -1,
    "huge list": [None] * 10_000,
}
# What some of them take.
WRONG_SOMEWHERE: dict[str, Any] = {
    "None": None,
    "true": True,
    "number": 3,
    "zero": 0,
    "fraction": 2.5,
    "huge number": 10**400,
    "number as text": "64",
    "empty text": "",
    "blank": " ",
    "long text": "a" * 5000,
    "null character": "a\0b",
    "lone surrogate": "a\ud800",
    "line break": "a\nb",
    "home of nobody": "~nobody-of-this-name/x",
    "path": Path(NOWHERE),
    "long path": Path("a" * 5000),
    "list": ["a", "b"],
    "empty list": [],
    "list of numbers": [64, 64],
    "list of true": [True],
    "pair of texts": ("64", "64"),
    "pairs of texts": [("64", "64")],
    "negative pairs": [(-64, 64)],
    "list of None": [None],
    "mapping": {"a": 3},
    "generator": (name for name in "ab"),
    "function without parameters": lambda: None,
}
# Arguments with which every function ends before it does anything, whatever the others are.
BASE: dict[str, dict[str, Any]] = {
    "clean": {"artifact": NOWHERE},
    "compare": {"candidates": [NOWHERE], "model": NOWHERE},
    "convert": {"file": NOWHERE, "base": NOWHERE, "output": NOWHERE},
    "describe": {"path": NOWHERE},
    "diff": {"first": NOWHERE, "second": NOWHERE},
    "evaluate": {"model": NOWHERE, "candidates": NOWHERE},
    "info": {"path": NOWHERE},
    "load_recipe": {"name_or_path": NOWHERE},
    "publish": {"artifact": NOWHERE, "repo_id": "owner/name"},
    "quantize": {"recipe": RECIPE, "model": NOWHERE},
    "verify": {"path": NOWHERE},
    **{f"export_{name}": {"recipe": RECIPE, "model": NOWHERE} for name in ("onnx", "rknn")},
    **{
        f"export_{name}": {"model": NOWHERE, "output": NOWHERE}
        for name in ("comfyui", "compressed_tensors", "diffusers", "gguf")
    },
    **{name: {"recipe": RECIPE, "model": NOWHERE} for name in ("plan", "plan_rknn")},
}
FUNCTIONS = sorted(set(edgepress.__all__) - {"ImagePipeline", "Recipe", "UserError", "__version__"})


def get_parameters(function: Callable[..., Any]) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name != "self"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path


def get_refusal(call: Callable[[], Any]) -> str:
    """The sentence that a call ends with; it must end so, and soon."""
    start = time.process_time()
    with pytest.raises(edgepress.UserError) as refusal:
        call()
    assert time.process_time() - start < LIMIT_S
    message = str(refusal.value)
    assert message.endswith((".", "?"))
    assert not any(word in message for word in ("object at 0x", "<class", "NoneType", "expected str"))
    return message


def test_every_public_function_is_tried() -> None:
    assert BASE.keys() == set(FUNCTIONS)


@pytest.mark.slow  # imports what the functions import
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_wrong_argument_is_a_sentence(name: str, folder: Path) -> None:
    function = getattr(edgepress, name)
    get_refusal(lambda: function(**BASE[name]))  # what it imports once does not count
    for parameter in get_parameters(function):
        for kind, value in (WRONG_EVERYWHERE | WRONG_SOMEWHERE).items():
            is_default = BASE[name].get(parameter) and value is None and parameter not in ("file", "base", "path")
            if is_default:  # the function would do what it does by default
                continue
            message = get_refusal(lambda: function(**BASE[name] | {parameter: value}))  # noqa: B023
            if kind in WRONG_EVERYWHERE:
                assert message.startswith((f"{parameter} ", f"{parameter}:")), kind
                assert "it must" in message
    assert not list(folder.iterdir())


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.usefixtures("folder")
def test_missing_and_unknown_arguments_are_sentences(name: str) -> None:
    function = getattr(edgepress, name)
    parameters = get_parameters(function)
    misspelt = f"{parameters[0]}s"
    assert get_refusal(lambda: function(**{misspelt: 1})).endswith(f"did you mean '{parameters[0]}'?")
    assert "Give its arguments by name" in get_refusal(lambda: function(*range(20)))
    if inspect.signature(function).parameters[parameters[0]].default is inspect.Parameter.empty:
        assert f"'{parameters[0]}'" in get_refusal(lambda: function())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sizes": (64, 64)}, "sizes = [64, 64]: it must be a list of pairs of whole numbers."),
        ({"sizes": [(0, 64)]}, "sizes[0][0] = 0: it must be at least 1."),
        ({"sizes": [(64, 64), (64, -3)]}, "sizes[1][1] = -3: it must be at least 1."),
        ({"extra_graphs": ["vae_encoder", ""]}, "extra_graphs[1] = '': it must not be empty."),
        ({"extra_graphs": "vae_encoder"}, "extra_graphs = 'vae_encoder': it must be a list of texts."),
        ({"opset": "23"}, "opset = '23': it must be a whole number."),
        ({"opset": 0}, "opset = 0: it must be at least 1."),
        ({"verify": 1}, "verify = 1: it must be True or False."),
        ({"precision": "int3"}, "precision = 'int3': it must be 'fp32', 'fp16', 'int4' or 'w8a8'."),
        ({"accuracy_level": True}, "accuracy_level = True: it must be 0 or 4."),
        ({"model": None, "output": ""}, "output = '': it must not be empty."),
        ({"model": b"x"}, "model is of the type bytes: it must be text or a path."),
        ({"recipe": 3}, "recipe = 3: it must be a Recipe, text or a path."),
        (
            {"progress": lambda: None},
            "progress is of the type function: it must be a function of a stage, what is done and the total.",
        ),
    ],
)
@pytest.mark.usefixtures("folder")
def test_the_sentence_names_the_argument_the_value_and_what_is_right(arguments: dict[str, Any], message: str) -> None:
    assert get_refusal(lambda: edgepress.export_onnx(**{"recipe": "rk3588", "model": NOWHERE} | arguments)) == message


class Path4:
    """A path as other libraries have it."""

    def __fspath__(self) -> str:
        return NOWHERE


@pytest.mark.parametrize(
    "arguments",
    [
        {"sizes": [[64, 64]]},
        {"sizes": ((np.int64(64), np.int64(64)),)},
        {"opset": np.int32(23)},
        {"model": Path4()},
        {"extra_graphs": ("vae_encoder",)},
        {"progress": print},
    ],
)
@pytest.mark.usefixtures("folder")
def test_what_means_the_same_is_accepted(arguments: dict[str, Any]) -> None:
    call = {"recipe": "rk3588", "model": NOWHERE} | arguments
    assert "There is no model folder" in get_refusal(lambda: edgepress.export_onnx(**call))


@pytest.mark.parametrize("method", ["__init__", "__call__", "generate", "check_request", "resolve_size"])
def test_a_wrong_argument_of_an_image_pipeline_is_a_sentence(method: str, folder: Path) -> None:
    """Of one that was never opened: arguments are checked before anything of it is used."""
    function = getattr(edgepress.ImagePipeline, method)
    pipeline = object.__new__(edgepress.ImagePipeline)
    base: dict[str, Any] = {"artifact": NOWHERE, "prompt": "a", "request": GenerationRequest("a")}
    parameters = get_parameters(function)
    for parameter in parameters:
        for kind, value in WRONG_EVERYWHERE.items():
            if (kind == "negative" and parameter in ("seed", "steps", "tile_size")) or (kind, parameter) == (
                "class",
                "warn",
            ):
                continue  # the request is checked with the artifact
            given = {name: base[name] for name in parameters if name in base} | {parameter: value}
            message = get_refusal(lambda: function(pipeline, **given))  # noqa: B023
            assert message.startswith(f"{parameter} ")
    assert not list(folder.iterdir())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "the key 'device' is missing; add it."),
        ({"device": 3}, "device = 3: it must be text."),
        ({"device": "a", "exprt": {}}, "unknown key 'exprt'; did you mean 'export'?"),
        ({"device": "a", "export": {"opset": "x"}}, "export.opset = 'x': it must be a whole number."),
        ({"device": "a", "export": 3}, "export = 3: it must be a mapping of keys to values."),
    ],
)
def test_a_wrong_recipe_is_a_sentence(values: dict[str, Any], message: str) -> None:
    assert get_refusal(lambda: edgepress.Recipe(**values)) == f"Recipe: {message}"


def test_a_number_without_limits_is_accepted() -> None:
    """It goes on to what an image pipeline has once it was opened."""
    pipeline = object.__new__(edgepress.ImagePipeline)
    pipeline.image_sizes = [(64, 64)]
    assert pipeline.resolve_size((np.int64(64), np.int64(64))) == (64, 64)
    with pytest.raises(edgepress.UserError, match="but 0x-1 was requested"):
        pipeline.resolve_size((0, -1))


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.usefixtures("folder")
def test_an_address_is_no_path(name: str) -> None:
    """As one, it would lose a slash and be a folder in the current one, which outputs would be written to."""
    function = getattr(edgepress, name)
    for parameter, description in inspect.signature(function).parameters.items():
        if "Path" not in str(description.annotation) or parameter in ("candidates", "pairs"):
            continue
        for address in ("https://host/x", "ftp://host/x", Path("s3://bucket/x")):
            given = BASE[name] | {parameter: address}
            message = get_refusal(lambda: function(**given))  # noqa: B023
            assert message == f"{parameter} = '{address}': it must be a path on this machine, not an address."
