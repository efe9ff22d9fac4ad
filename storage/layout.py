"""Where things are in an artifact: the names of its top folders and of the files that tell them apart."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .markers import JsonAuthor, identify_author

MODEL, ONNX, RKNN = "model", "onnx", "rknn"
KIT = "kit"  # what installs the artifact on a board
EVALUATION, BENCH, WORK, SOLUTIONS = "evaluation", "bench", ".work", "solutions"
GGUF, DIFFUSERS, COMFYUI, COMPRESSED_TENSORS = "gguf", "diffusers", "comfyui", "compressed-tensors"
MANIFEST, MODEL_INDEX, CONFIG_NAME = "manifest.json", "model_index.json", "pipeline.json"
SCHEDULER_CONFIG = "scheduler_config.json"
LORA_SCALES = "lora/scales.safetensors"  # in a component of a quantized pipeline
WEIGHT_EXPORT_NAME = "export.json"
CHECKSUMS_NAME = "SHA256SUMS"
DESCRIPTION_NAME, CARD_NAME, SBOM_NAME = "artifact.json", "README.md", "sbom.cdx.json"  # of an artifact as a whole
SIGNATURE, BOARD_SIGNATURE = "artifact.sig", "board.sig"  # of all that is published, and of what boards need of it
DOCUMENT_NAMES = (DESCRIPTION_NAME, CARD_NAME, SBOM_NAME)
EVALUATION_RESULTS, BENCH_RESULTS = "results.json", "bench.json"
MARKERS = {  # keys of which no other program's files of these names have most
    MANIFEST: ("schema_version", "prompts_sha256", "sources", "files", "layers"),
    CONFIG_NAME: ("schema_version", "family", "graphs", "host"),
    WEIGHT_EXPORT_NAME: ("schema_version", "format", "model_sha256", "components", "files"),
}
SIMULATOR_FOLDER = "simulator"  # in `rknn`: what the toolkit needs to build the parts again; a board may lack it
ENGINES_FOLDER = "engines"  # in `onnx`: what build_engines.sh builds there on a board
TIMINGS, LOCAL = "timings.json", "local.json"
LOCAL_CHECKSUMS = "local.sha256"  # of these two, as SHA256SUMS
ARTIFACTS = Path("artifacts")  # where artifacts are written by default
GENERATORS = (MODEL, ONNX, RKNN)  # folders of an artifact that images can be generated with
# Folders of an artifact whose weights other programs load.
WEIGHT_EXPORTS = (GGUF, DIFFUSERS, COMFYUI, COMPRESSED_TENSORS)
PUBLISHED = (*GENERATORS, *WEIGHT_EXPORTS)
TOP_NAMES = (
    *PUBLISHED,
    EVALUATION,
    BENCH,
    KIT,
    MANIFEST,
    CHECKSUMS_NAME,
    DESCRIPTION_NAME,
    CARD_NAME,
    SBOM_NAME,
    SIGNATURE,
    BOARD_SIGNATURE,
    TIMINGS,
    LOCAL,
    LOCAL_CHECKSUMS,
)  # all that an artifact consists of


@dataclass(frozen=True)
class Artifact:
    """What is made for one device, as a folder.

    Nothing is created; only the properties `has_…` look at files.

    Attributes:
        path: The artifact's folder.
    """

    path: Path

    @classmethod
    def of_device(cls, device: str) -> Artifact:
        """The artifact that a device's recipe is written to by default."""
        return cls(ARTIFACTS / device)

    @classmethod
    def containing(cls, folder: Path) -> Artifact:
        """The artifact that a folder `model`, `onnx` or `rknn` is part of, however its path is written."""
        return cls(locate_folder(folder).parent)

    @property
    def model(self) -> Path:
        """The quantized diffusers pipeline."""
        return self.path / MODEL

    @property
    def onnx(self) -> Path:
        """The exported ONNX graphs."""
        return self.path / ONNX

    @property
    def rknn(self) -> Path:
        """The exported RKNN parts."""
        return self.path / RKNN

    @property
    def evaluation(self) -> Path:
        """Results and reports of `edgepress evaluate`."""
        return self.path / EVALUATION

    @property
    def bench(self) -> Path:
        """Results of `edgepress bench`."""
        return self.path / BENCH

    @property
    def manifest(self) -> Path:
        """The file that says what `model` was made from."""
        return self.path / MANIFEST

    @property
    def description(self) -> Path:
        """The file that says what the artifact is as a whole."""
        return self.path / DESCRIPTION_NAME

    @property
    def timings(self) -> Path:
        """The file with the duration of each stage of quantization."""
        return self.path / TIMINGS

    @property
    def local(self) -> Path:
        """The file that says what is true on this machine only."""
        return self.path / LOCAL

    @property
    def work(self) -> Path:
        """Unfinished work, the lock, and backups of folders that are being replaced."""
        return self.path / WORK

    @property
    def has_model(self) -> bool:
        """Whether there is a quantized pipeline."""
        return is_pipeline(self.model)

    @property
    def has_onnx(self) -> bool:
        """Whether there are exported ONNX graphs."""
        return is_export(self.onnx)

    @property
    def has_rknn(self) -> bool:
        """Whether there are exported RKNN parts."""
        return is_export(self.rknn)


def locate_folder(folder: Path) -> Path:
    """The path of a folder of an artifact with its own name at the end: `.` and links of other names are resolved."""
    if folder.name in GENERATORS:  # maybe a link itself, which belongs to the artifact that it is in
        return folder
    try:
        real = folder.resolve()
    except RuntimeError:  # a link to itself
        return folder
    return real if real.name in GENERATORS or folder.name in ("", "..") else folder


def is_pipeline(folder: Path) -> bool:
    """Whether a folder is a diffusers pipeline."""
    return (folder / MODEL_INDEX).exists()


def is_repository(folder: Path) -> bool:
    """Whether a folder is a model repository that `edgepress publish` wrote: a pipeline with the manifest in it."""
    return is_pipeline(folder) and is_written_by_edgepress(folder / MANIFEST)


def is_export(folder: Path) -> bool:
    """Whether a folder holds exported graphs, ONNX or RKNN, by its pipeline.json, which may be damaged."""
    file = folder / CONFIG_NAME
    return file.exists() and not is_of_another_program(file)


def is_weight_export(folder: Path) -> bool:
    """Whether a folder holds weights that edgepress exported for other programs."""
    return is_written_by_edgepress(folder / WEIGHT_EXPORT_NAME)


def is_written_by_edgepress(file: Path) -> bool:
    """Whether edgepress wrote a manifest.json, pipeline.json or export.json; not if that cannot be seen any more."""
    return identify_author(file, MARKERS[file.name]) is JsonAuthor.EDGEPRESS


def is_of_another_program(file: Path) -> bool:
    """Whether another program certainly wrote a manifest.json, pipeline.json or export.json."""
    return identify_author(file, MARKERS[file.name]) is JsonAuthor.ANOTHER


def solution_folder(model: Path, scheme: str, component: str) -> Path:
    """The weights of a component in one of the extra schemes, stored beside the quantized pipeline in `model`."""
    return model / SOLUTIONS / scheme / component


def solution_folders(model: Path, component: str) -> list[Path]:
    """The weights of a component in all extra schemes, in the order of the schemes' names."""
    return sorted(model.glob(f"{SOLUTIONS}/*/{component}"))
