"""Every reader of files from outside, with valid files of the project to damage."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ...api.inspection import info
from ...evaluate.images.image_file import load_image, load_record
from ...evaluate.metrics import psnr
from ...evaluate.metrics.base import MetricSettings
from ...evaluate.results.aggregate import VariantPair, aggregate, find_reference_defects, select_variant
from ...evaluate.results.gates import overall_verdict
from ...evaluate.results.history import append_run
from ...evaluate.results.results_file import load_results
from ...evaluate.results.schema import Results
from ...evaluate.scoring.score_cache import open_score_cache
from ...models.base.prompt_tokens import PromptFormat
from ...pipelines.hub import DEMO_PIPELINE as PIPELINE
from ...pipelines.preflight import check_images, check_pipeline
from ...prompts.reader import load_prompts
from ...recipes.loader import RECIPES_DIR, load_recipe
from ...runtime.onnx.exported import load_exported_onnx
from ...runtime.rknn.exported import load_exported_rknn
from ...runtime.scheduler import make_schedule
from ...runtime.tokenizer import PromptTokenizer
from ...storage.checkpoint import Checkpoint
from ...storage.files import hash_file, read_json_object
from ...storage.layout import CHECKSUMS_NAME, CONFIG_NAME, MANIFEST, MODEL_INDEX, ONNX, RKNN
from ...storage.manifest import Manifest, read_manifest
from ...storage.pipeline_config import OnnxPipelineConfig, RknnPipelineConfig
from ...storage.safetensors_header import read_tensor_headers
from .examples import make_example

FIELD_VALUES: Mapping[str, Any] = {
    "sha256": "0" * 64,
    "config_sha256": "0" * 64,
    "buckets": None,
    "file": "x.onnx",
    "ScoreGroup.name": "all",
    "region": [0.1, 0.1, 0.9, 0.9],
}
PROMPT_LINES = ('{"id": "a", "prompt": "a sign: \\"OPEN\\"", "language": "en", "lines": ["OPEN"], '
                '"categories": {"kind": "sign"}}', '{"id": "b", "prompt": "a cat", "language": "en"}')  # fmt: skip
PARTI = b"Prompt\tCategory\tChallenge\tNote\na cat\tAnimals\tBasic\t\na dog\tAnimals\tSimple\tx\n"
PROMPT_FORMAT = PromptFormat("tokenizer", 128, chat_template_kwargs={})
TOKENIZER_FILES = (("tokenizer.json", "json"), ("tokenizer_config.json", "json"), ("chat_template.jinja", None))
IMAGE_SUFFIXES = ("png", "jpeg", "webp", "bmp")


@dataclass(frozen=True)
class Reader:
    """A reader of files from outside.

    Attributes:
        name: What it reads.
        make_files: Makes the valid files, by path.
        targets: The files that are damaged, one at a time, with their format in `mutations.FORMATS`, or None.
        read: Reads a folder of such files; it is also given the path of the damaged one.
    """

    name: str
    make_files: Callable[[], Mapping[str, bytes]]
    targets: Sequence[tuple[str, str | None]]
    read: Callable[[Path, Path], object]


def _copy_files(root: Path, *names: str) -> Mapping[str, bytes]:
    return {name: (root / name).read_bytes() for name in names}


def _make_prompt_files() -> Mapping[str, bytes]:
    objects = [json.loads(line) for line in PROMPT_LINES]
    return {
        "prompts.jsonl": "\n".join(PROMPT_LINES).encode(),
        "prompts.json": json.dumps(objects).encode(),
        "prompts.csv": b'id,prompt,language\na,"a cat, a dog",en\nb,rain,en\n',
        "prompts.tsv": PARTI,
        "prompts.txt": b"a cat\ntwo dogs\n",
    }


def _make_safetensors(**tensors: tuple[str, list[int], int]) -> bytes:
    """A file of zeros; each tensor has a dtype, a shape and bytes."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (dtype, shape, nbytes) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + nbytes]}
        end += nbytes
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(end)


@cache
def _make_weights() -> Mapping[str, bytes]:
    first = _make_safetensors(w=("F32", [2, 3], 24), b=("BF16", [4], 8))
    index = {
        "metadata": {"total_size": 48},
        "weight_map": {"w": "a.safetensors", "b": "a.safetensors", "v": "b.safetensors"},
    }
    return {
        "a.safetensors": first,
        "b.safetensors": _make_safetensors(v=("I8", [4, 4], 16)),
        "diffusion_pytorch_model.safetensors.index.json": json.dumps(index).encode(),
        "config.json": b'{"_class_name": "X", "hidden_size": 4}',
    }


def _read_checkpoint(folder: Path, _: Path) -> None:
    checkpoint = Checkpoint(folder)
    checkpoint.load_config()
    checkpoint.check_finite()


def _make_pipeline_files() -> Mapping[str, bytes]:
    weights = _make_safetensors(w=("F32", [2, 3], 24))
    components = ("text_encoder", "transformer", "vae")
    names = {"text_encoder": "model", "transformer": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model"}
    return {
        **_copy_files(PIPELINE, MODEL_INDEX, "scheduler/scheduler_config.json", "tokenizer/tokenizer.json"),
        **_copy_files(PIPELINE, "tokenizer/tokenizer_config.json", "tokenizer/chat_template.jinja"),
        **_copy_files(PIPELINE, *(f"{name}/config.json" for name in components)),
        **{f"{name}/{names[name]}.safetensors": weights for name in components},
    }


def _read_pipeline(folder: Path, _: Path) -> None:
    check_pipeline(folder)
    check_images(folder, 64, 64)
    info(folder)


@cache
def _dump_example(schema: type[Any]) -> bytes:
    return json.dumps(make_example(schema, FIELD_VALUES).model_dump(mode="json")).encode()


def _list_published(export: str) -> Mapping[str, bytes]:
    """The files that the example of a pipeline.json names, of one byte each."""
    return {f"{export}/{name}": b"x" for name in ("x", "x.onnx", "x.rknn")}


def _read_listed(read: Callable[[Path], object]) -> Callable[[Path, Path], object]:
    """Reads a folder whose SHA256SUMS lists the damaged file as it is, or hashes would stop every reader at once."""

    def list_and_read(folder: Path, file: Path) -> object:
        if file.is_file():
            file.with_name(CHECKSUMS_NAME).write_text(f"{hash_file(file)}  {file.name}\n", "utf-8")
        return read(folder)

    return list_and_read


def _make_image_files() -> Mapping[str, bytes]:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (24, 32, 3), np.uint8))
    files = {}
    for suffix in IMAGE_SUFFIXES:
        stream = BytesIO()
        image.save(stream, suffix)
        files[f"image.{suffix}"] = stream.getvalue()
    return files


def _read_image(_: Path, file: Path) -> None:
    load_record(file)
    load_image(file)


@cache
def _make_score_cache() -> Mapping[str, bytes]:
    import sqlite3

    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE results (key TEXT PRIMARY KEY, result TEXT NOT NULL)")
    connection.execute('INSERT INTO results VALUES (\'k\', \'[{"psnr": 30.5}, {"read": ["A"]}]\')')
    connection.commit()
    return {"scores.sqlite": connection.serialize()}


def _read_score_cache(_: Path, file: Path) -> None:
    with open_score_cache(file) as scores:
        scores.get("k")


@cache
def _make_run() -> Results:
    return make_example(Results, {**FIELD_VALUES, "str": "psnr"})


@cache
def _make_consistent_run() -> Results:
    """Results whose aggregates are those of their samples, and whose intervals contain their means."""
    run = make_example(Results, FIELD_VALUES)
    scores = run.pair_scores, run.image_scores
    variants = {name: aggregate(select_variant(run.samples, name), *scores) for name in run.variants}
    repeats = [VariantPair(sample, sample.noise_floor) for sample in run.samples if sample.noise_floor]
    identity = run.identity.model_copy(update={"variants": dict.fromkeys(variants, run.identity.reference)})
    return run.model_copy(
        update={
            "identity": identity,
            "variants": variants,
            "noise_floor": aggregate(repeats, *scores) if repeats else None,
            "reference_defects": find_reference_defects(run.samples),
            "gates": (),
            "verdict": overall_verdict((), variants.values()),
        }
    )


def _add_to_history(_: Path, file: Path) -> None:
    append_run(file, _make_run(), [psnr.create_metric(MetricSettings())])


@cache
def _make_history() -> Mapping[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "history.sqlite"
        _add_to_history(Path(folder), file)
        return {file.name: file.read_bytes()}


READERS: Mapping[str, Reader] = {
    reader.name: reader
    for reader in (
        Reader(
            "recipe",
            lambda: _copy_files(RECIPES_DIR, "orin.yaml", "rk3588.yaml"),
            [("orin.yaml", "yaml"), ("rk3588.yaml", "yaml")],
            lambda _, file: load_recipe(file),
        ),
        Reader(
            "prompt set",
            _make_prompt_files,
            [
                ("prompts.jsonl", "jsonl"),
                ("prompts.json", "json"),
                ("prompts.csv", "csv"),
                ("prompts.tsv", None),
                ("prompts.txt", None),
            ],
            lambda _, file: load_prompts(file),
        ),
        Reader(
            "safetensors header",
            _make_weights,
            [("a.safetensors", "safetensors")],
            lambda _, file: read_tensor_headers(file),
        ),
        Reader(
            "component with shards",
            _make_weights,
            [
                ("a.safetensors", "safetensors"),
                ("diffusion_pytorch_model.safetensors.index.json", "json"),
                ("config.json", "json"),
            ],
            _read_checkpoint,
        ),
        Reader(
            "pipeline folder",
            _make_pipeline_files,
            [
                (MODEL_INDEX, "json"),
                ("transformer/config.json", "json"),
                ("vae/config.json", "json"),
                ("scheduler/scheduler_config.json", "json"),
                ("vae/diffusion_pytorch_model.safetensors", "safetensors"),
            ],
            _read_pipeline,
        ),
        Reader(
            "manifest.json",
            lambda: {MANIFEST: _dump_example(Manifest)},
            [(MANIFEST, "json")],
            _read_listed(read_manifest),
        ),
        Reader(
            "onnx/pipeline.json",
            lambda: {f"{ONNX}/{CONFIG_NAME}": _dump_example(OnnxPipelineConfig), **_list_published(ONNX)},
            [(f"{ONNX}/{CONFIG_NAME}", "json")],
            _read_listed(load_exported_onnx),
        ),
        Reader(
            "rknn/pipeline.json",
            lambda: {f"{RKNN}/{CONFIG_NAME}": _dump_example(RknnPipelineConfig), **_list_published(RKNN)},
            [(f"{RKNN}/{CONFIG_NAME}", "json")],
            _read_listed(load_exported_rknn),
        ),
        Reader(
            "results.json",
            lambda: {"results.json": json.dumps(_make_consistent_run().model_dump(mode="json")).encode()},
            [("results.json", "json")],
            lambda _, file: load_results(file),
        ),
        Reader(
            "tokenizer",
            lambda: _copy_files(PIPELINE / "tokenizer", *(name for name, _ in TOKENIZER_FILES)),
            TOKENIZER_FILES,
            lambda folder, _: PromptTokenizer(folder, PROMPT_FORMAT).tokenize("a cat"),
        ),
        Reader(
            "scheduler",
            lambda: _copy_files(PIPELINE / "scheduler", "scheduler_config.json"),
            [("scheduler_config.json", "json")],
            lambda _, file: make_schedule(read_json_object(file), 4, 256),
        ),
        Reader("image", _make_image_files, [(f"image.{suffix}", None) for suffix in IMAGE_SUFFIXES], _read_image),
        Reader("history", _make_history, [("history.sqlite", None)], _add_to_history),
        Reader("score cache", _make_score_cache, [("scores.sqlite", None)], _read_score_cache),
    )
}
