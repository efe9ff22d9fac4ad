"""pipeline.json: what an ONNX or RKNN export says of itself, for the runtime that reads it.

Keys of earlier releases are read as well; what is written has the names of the fields. It is light to import, since
boards read it without torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveInt,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from ..common.errors import UserError, summarize_error
from ..common.regular_files import read_regular_text
from .checksums import read_checksums, require_checksum, write_checksums
from .files import FileRecord, list_files, record_file, write_json
from .layout import CHECKSUMS_NAME, CONFIG_NAME, RKNN, is_of_another_program, locate_folder
from .published_model import describe_validation_error
from .relative_path import FileName, RelativePath
from .strict_json import parse_strict_json

SCHEMA_VERSION = 1

ModelDigest = Annotated[
    str | None,
    Field(
        description="Digest of the files of `model` in the same artifact, if that was exported; empty if another "
        "pipeline was. Null in exports of earlier releases."
    ),
]
PublishedFiles = Annotated[
    tuple[FileRecord, ...],
    Field(description="All files of the export but this one and SHA256SUMS; empty in exports of earlier releases."),
]


class ConfigModel(BaseModel):
    """An immutable part of pipeline.json. Keys that are unknown are ignored: a newer release may have written them."""

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)


class OptionalFieldsModel(ConfigModel):
    """A part of pipeline.json whose fields without a value are not written."""

    @model_serializer(mode="wrap")
    def _omit_missing(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in serialize(self).items() if value is not None}


# ---------------------------------------------------------------- onnx/pipeline.json


class PortConfig(ConfigModel):
    """An input or output of a graph."""

    name: str = Field(description="Its name in the graph.")
    dtype: str = Field(description="Its element type as NumPy calls it, such as `float32`.")
    shape: tuple[int | str, ...] = Field(description="Its axes: sizes, or names of axes whose size varies.")


class BucketConfig(ConfigModel):
    """The file of a graph for one combination of sizes."""

    file: RelativePath = Field(description="The file, relative to the export.")
    axes: dict[str, int] = Field(description="The sizes of the axes that vary, by name.")


class GraphConfig(OptionalFieldsModel):
    """An ONNX graph: one file with dynamic shapes, or one file for each bucket of fixed shapes."""

    file: RelativePath | None = Field(
        default=None, description="The file, relative to the export, if shapes are dynamic."
    )
    buckets: tuple[BucketConfig, ...] | None = Field(default=None, description="The files, if shapes are fixed.")
    component: str = Field(default="", description="The pipeline's component that the graph computes or is part of.")
    inputs: tuple[PortConfig, ...] = Field(default=(), description="The inputs in order.")
    outputs: tuple[PortConfig, ...] = Field(default=(), description="The outputs in order.")

    @model_validator(mode="after")
    def _check_files(self) -> GraphConfig:
        if (self.file is None) == (not self.buckets):
            raise ValueError("a graph has either a file or buckets")
        return self


class OutputErrorConfig(ConfigModel):
    """How far a graph's output is from torch's."""

    max_abs: float = Field(
        validation_alias=AliasChoices("max_abs", "largest"), description="The largest absolute error."
    )
    relative: float = Field(description="The largest absolute error over the largest absolute value of torch's output.")


class Fp16SumsConfig(ConfigModel):
    """The product of a graph that loses most where terms are summed in float16."""

    product: str = Field(description="Name of its output.")
    length: int = Field(description="Number of terms of a sum.")
    relative_error: float | None = Field(description="Its error over its largest value; null where it overflows.")


class ParityConfig(ConfigModel):
    """How far the graphs are from torch."""

    graphs: dict[str, OutputErrorConfig] = Field(min_length=1, description="The error of each graph.")
    psnr: float | None = Field(description="PSNR of an image in dB; null if it equals torch's, or was not compared.")
    image_compared: bool = Field(
        validation_alias=AliasChoices("image_compared", "painted"),
        description="Whether an image was generated with the graphs and compared with torch's.",
    )
    fp16_sums: dict[str, Fp16SumsConfig] = Field(
        default={}, description="Of graphs in float16: what processors lose that sum in float16, computed in numpy."
    )


class SessionOptionsConfig(ConfigModel):
    """The options of ONNX Runtime that the graphs are verified and run with. Others may compute something else."""

    onnxruntime: str = Field(description="The version of ONNX Runtime.")
    providers: tuple[str, ...] = Field(description="Execution providers.")
    graph_optimization_level: str = Field(description="As `onnxruntime.GraphOptimizationLevel` calls it.")
    entries: dict[str, str] = Field(description="Key and value for each `SessionOptions.add_session_config_entry`.")


class PresetConfig(ConfigModel):
    """Settings to generate images with, under the name of a preset."""

    steps: PositiveInt = Field(description="Number of denoising steps.")
    size: tuple[PositiveInt, PositiveInt] | None = Field(
        default=None, description="[height, width] in pixels; null for the default of the export."
    )
    guidance: float = Field(default=0.0, ge=0, description="Guidance scale; 0 disables classifier-free guidance.")


class RuntimeConfig(ConfigModel):
    """How graphs run on the device's CPU."""

    threads: NonNegativeInt = Field(default=0, description="Threads of a graph; 0: as ONNX Runtime chooses.")
    cores: Literal["all", "fast"] = Field(default="all", description="As in the recipe.")


PresetConfigs = Annotated[
    dict[str, PresetConfig],
    Field(description="The recipe's presets by name, such as `fast`; empty in exports of earlier releases."),
]


class OnnxPipelineConfig(ConfigModel):
    """onnx/pipeline.json."""

    schema_version: int = Field(default=SCHEMA_VERSION, description="The version of this schema.")
    family: str = Field(description="The class of the diffusers pipeline.")
    precision: Literal["fp32", "fp16", "int4", "w8a8"] = Field(default="int4", description="As in the recipe.")
    format: Literal["ort", "qdq"] = Field(
        default="ort", validation_alias=AliasChoices("format", "flavour"), description="As in the recipe."
    )
    opset: int = Field(default=23, description="The ONNX opset version.")
    accuracy_level: Literal[0, 4] = Field(default=0, description="As in the recipe.")
    activations: Literal["dynamic", "static"] = Field(default="dynamic", description="As in the recipe.")
    float_dtype: Literal["fp32", "fp16"] = Field(
        default="fp32", validation_alias=AliasChoices("float_dtype", "floats"), description="As in the recipe."
    )
    sizes: tuple[tuple[PositiveInt, PositiveInt], ...] = Field(
        default=(), description="[height, width] in pixels of the images that were verified, or exported for."
    )
    shapes: Literal["dynamic", "fixed"] = Field(default="dynamic", description="As in the recipe.")
    max_prompt_tokens: PositiveInt = Field(
        default=128, validation_alias=AliasChoices("max_prompt_tokens", "tokens"), description="As in the recipe."
    )
    graphs: dict[str, GraphConfig] = Field(description="The graphs by name.")
    host: dict[str, Any] = Field(
        description="What the code around the graphs must know: the config of each component by folder name, and "
        "`max_prompt_tokens` if shapes are fixed."
    )
    sources: tuple[FileRecord, ...] = Field(default=(), description="The files of the pipeline that was exported.")
    model_sha256: ModelDigest = None
    presets: PresetConfigs = {}
    runtime: RuntimeConfig = Field(default=RuntimeConfig(), description="The recipe's section `runtime`.")
    files: PublishedFiles = ()
    parity: dict[str, ParityConfig] = Field(
        default={},
        description="The errors of the graphs: `exact` without integer arithmetic, and `exported` as they run, if "
        "they compute in integers.",
    )
    session_options: SessionOptionsConfig | None = Field(
        default=None,
        description="How edgepress runs the graphs, and verified them; null in exports of earlier releases.",
    )

    @property
    def recorded_files(self) -> tuple[FileRecord, ...]:
        """The files of which sizes and hashes are known."""
        return self.files

    @property
    def uses_fp16(self) -> bool:
        """Whether graphs compute in float16."""
        return "fp16" in (self.precision, self.float_dtype if self.precision == "int4" else "")


# ---------------------------------------------------------------- rknn/pipeline.json


class OperatorsConfig(ConfigModel):
    """Where the operators of a part run."""

    npu: int = Field(description="Number of operators that run on the NPU.")
    not_on_npu: tuple[str, ...] = Field(
        validation_alias=AliasChoices("not_on_npu", "elsewhere"), description="Operators that run on the CPU."
    )


class PartMemoryConfig(ConfigModel):
    """Memory of a part on the NPU, as the toolkit reports it."""

    weights: int = Field(description="Bytes of weights.")
    internal: int = Field(description="Bytes of intermediate results.")


class SimulationConfig(ConfigModel):
    """How far the simulated part is from its float ONNX graph, on the worst sample."""

    relative_error: float = Field(
        validation_alias=AliasChoices("relative_error", "relative"),
        description="Norm of the error over the norm of the output.",
    )
    cosine: float = Field(description="Cosine similarity.")


class LayerErrorConfig(ConfigModel):
    """The error of a layer by itself."""

    operator: str = Field(description="The operator's type.")
    name: str = Field(description="The layer's name.")
    error: float = Field(description="1 - cosine similarity.")


class BuildRecord(ConfigModel):
    """What building a part took."""

    seconds: float = Field(description="Seconds.")
    peak_bytes: int = Field(
        validation_alias=AliasChoices("peak_bytes", "peak"), description="Peak memory of the toolkit's process so far."
    )


class RejectionConfig(ConfigModel):
    """A precision that a part was built in and that was not accurate enough."""

    precision: str = Field(description="The precision.")
    reason: str = Field(description="Why it was rejected.")


class PartConfig(OptionalFieldsModel):
    """A part of a graph. Only parts for the NPU have the fields from `bytes` on."""

    name: FileName = Field(description="The part's name, and that of its files.")
    inputs: tuple[FileName, ...] = Field(description="The inputs in order.")
    device: Literal["npu", "cpu"] = Field(description="Where it runs.")
    config: dict[str, Any] = Field(description="The toolkit's settings to build it with.")
    quantized: bool = Field(description="Whether it was quantized with calibration samples.")
    float_layers: tuple[str, ...] = Field(description="Outputs of the layers that are not quantized.")
    bytes: int | None = Field(default=None, ge=0, description="Size of the .rknn file.")
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$", description="SHA-256 of the .rknn file.")
    operators: OperatorsConfig | None = Field(default=None, description="Where its operators run.")
    errors: tuple[str, ...] | None = Field(
        default=None, validation_alias=AliasChoices("errors", "faults"), description="Errors in the toolkit's log."
    )
    memory: PartMemoryConfig | None = Field(default=None, description="Its memory on the NPU.")
    simulated: SimulationConfig | None = Field(default=None, description="Its accuracy in the simulator.")
    worst_layers: tuple[LayerErrorConfig, ...] | None = Field(
        default=None,
        validation_alias=AliasChoices("worst_layers", "worst"),
        description="The layers with the largest errors, if they were analysed.",
    )
    build: BuildRecord | None = Field(default=None, description="What building it took.")
    precision: str | None = Field(default=None, description="The precision that it was built in.")
    rejected: tuple[RejectionConfig, ...] | None = Field(
        default=None,
        validation_alias=AliasChoices("rejected", "refused"),
        description="Precisions that were tried before and rejected.",
    )
    status: str | None = Field(default=None, description="Whether it was simulated.")


class RknnPipelineConfig(ConfigModel):
    """rknn/pipeline.json."""

    schema_version: int = Field(default=SCHEMA_VERSION, description="The version of this schema.")
    family: str = Field(description="The class of the diffusers pipeline.")
    target: str = Field(description="The Rockchip processor.")
    toolkit: str = Field(description="The version of rknn-toolkit2.")
    size: tuple[PositiveInt, PositiveInt] = Field(description="[height, width] of the images in pixels.")
    max_prompt_tokens: PositiveInt = Field(
        validation_alias=AliasChoices("max_prompt_tokens", "tokens"),
        description="The length of the longest prompt in tokens.",
    )
    tile: PositiveInt | None = Field(
        default=None, description="Side in pixels of the tiles that the VAE decodes; null if it decodes images whole."
    )
    settings: dict[str, Any] = Field(default={}, description="The section `rknn` of the recipe.")
    graphs: dict[str, tuple[PartConfig, ...]] = Field(description="The parts of each graph, in the order they run in.")
    host: dict[str, Any] = Field(description="The config of each component, by folder name.")
    image_psnr: dict[str, float | None] = Field(
        default={},
        validation_alias=AliasChoices("image_psnr", "picture"),
        description="PSNR in dB between torch's image and that of the `float` or the `simulated` parts; null if equal.",
    )
    verified_on_a_board: bool = Field(default=False, description="Whether the parts were run on a board.")
    sources: tuple[FileRecord, ...] = Field(default=(), description="The files of the pipeline that was exported.")
    model_sha256: ModelDigest = None
    presets: PresetConfigs = {}
    runtime: RuntimeConfig = Field(default=RuntimeConfig(), description="The recipe's section `runtime`.")
    files: PublishedFiles = ()

    @property
    def recorded_files(self) -> tuple[FileRecord, ...]:
        """The files of which sizes and hashes are known: in exports of earlier releases, those of the built parts."""
        parts = [part for graph in self.graphs.values() for part in graph]
        return self.files or tuple(
            FileRecord(path=f"{part.name}.rknn", bytes=part.bytes, sha256=part.sha256)
            for part in parts
            if part.bytes is not None and part.sha256 is not None
        )


# ---------------------------------------------------------------- reading and writing

Config = TypeVar("Config", OnnxPipelineConfig, RknnPipelineConfig)


def read_onnx_config(folder: Path) -> OnnxPipelineConfig:
    """Reads the pipeline.json of an exported folder `onnx`.

    Raises:
        UserError: It is missing, corrupt, or of another schema version.
    """
    return _read_config(folder, OnnxPipelineConfig, "edgepress export onnx")


def read_rknn_config(folder: Path) -> RknnPipelineConfig:
    """Reads the pipeline.json of an exported folder `rknn`.

    Raises:
        UserError: It is missing, corrupt, or of another schema version.
    """
    return _read_config(folder, RknnPipelineConfig, "edgepress export rknn")


def read_export_config(folder: Path) -> OnnxPipelineConfig | RknnPipelineConfig:
    """Reads the pipeline.json of an exported folder of either kind: that of parts names a target.

    Raises:
        UserError: It is missing, corrupt, or of another schema version.
    """
    return read_rknn_config(folder) if is_rknn_export(folder) else read_onnx_config(folder)


def is_rknn_export(folder: Path) -> bool:
    """Whether an export holds parts for an NPU. Where its pipeline.json is damaged, its name decides."""
    try:
        content = parse_strict_json(read_regular_text(folder / CONFIG_NAME))
    except (OSError, ValueError):  # reading it says what is wrong
        return locate_folder(folder).name == RKNN
    return "target" in content


def write_config(
    config: OnnxPipelineConfig | RknnPipelineConfig, folder: Path, hashed: Sequence[FileRecord] = ()
) -> None:
    """Completes an export: records all of its files in pipeline.json, and writes that and SHA256SUMS.

    Args:
        config: What the export says of itself.
        folder: The folder of the export, with all other files.
        hashed: Records of files that need not be read again.
    """
    known = {file.path: file for file in hashed}
    names = [name for name in list_files(folder) if name not in (CONFIG_NAME, CHECKSUMS_NAME)]
    files = tuple(known.get(name) or record_file(folder, name) for name in names)
    write_json(config.model_copy(update={"files": files}).model_dump(mode="json"), folder / CONFIG_NAME)
    write_checksums([*files, record_file(folder, CONFIG_NAME)], folder)


def _read_config(folder: Path, schema: type[Config], command: str) -> Config:
    path, remedy = folder / CONFIG_NAME, f"Run '{command}' again."
    try:
        content = parse_strict_json(read_regular_text(path))
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist. Run '{command}' to create it.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is corrupt: it is not UTF-8. {remedy}") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is corrupt: {summarize_error(error)}. {remedy}") from error
    _require_version(path, content.get("schema_version"), remedy)
    is_required = bool(content.get("files"))  # exports of earlier releases have neither
    require_checksum(path, read_checksums(folder), remedy, is_required=is_required)
    try:
        config = schema.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{path} is corrupt: {describe_validation_error(error)}. {remedy}") from error
    if not config.graphs:
        raise UserError(f"{path} is corrupt: it lists no graphs. {remedy}")
    return config


def _require_version(path: Path, version: object, remedy: str) -> None:
    if type(version) is int and version == SCHEMA_VERSION:
        return
    if is_of_another_program(path):
        raise UserError(f"{path} was written by another program. Give a folder that edgepress made.")
    reads = f"{path} has schema version {version}, but this edgepress reads version {SCHEMA_VERSION}"
    if type(version) is int and version > SCHEMA_VERSION:
        raise UserError(f"{reads}: a newer edgepress wrote it. Upgrade edgepress.")
    raise UserError(f"{reads}. {remedy}")
