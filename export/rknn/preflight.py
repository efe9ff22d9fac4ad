"""Checks an export to an NPU from its settings, configs and headers, without torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...common.errors import UserError
from ...models.base.host import load_host
from ...models.base.image_size import check_image_size
from ...models.base.npu import NpuHost, NpuSpec, load_npu_host_class, load_npu_spec, with_tiled_decoder
from ...pipelines.preflight import check_host, check_weight_formats
from ...recipes.key_errors import RecipeValueError, checking_key
from ...recipes.rknn import RknnSettings
from ...recipes.schema import Recipe, Scheme
from ...runtime.rknn.toolkit import find_interpreter
from ...storage.checkpoint import Checkpoint
from ...storage.layout import Artifact, solution_folders
from ...storage.provenance import require_same_model
from ..graph.preflight import check_export
from ..graph.source_model import SourcePipeline, open_source
from .settings import require_rknn_settings

MIN_WEIGHT_BITS = {"fp16": 16, "w8a8": 8, "w4a16": 4, "auto": 4}  # of the narrowest weights, by precision
SCHEME_EXAMPLES = {
    "w4a16": "{group_size: 32, symmetric: true, narrow_range: true}",
    "w8a8": "{bits: 8, group_size: channel, symmetric: true, narrow_range: true, activations: static}",
}


def check_inputs(source: Path, output: Path, settings: RknnSettings, components: Sequence[str]) -> SourcePipeline:
    """Opens the pipeline, and checks everything that needs no class of a library and no weight.

    Args:
        source: A diffusers folder or an artifact folder.
        output: The artifact folder; 4- and 8-bit solutions come from its `model` folder, if there is one.
        settings: Settings of the recipe.
        components: Components to export; empty: all.

    Raises:
        UserError: There is no toolkit, or an input is invalid.
    """
    find_interpreter()
    _check_precision(settings)
    model = open_source(source)
    check_export(model, Artifact(output).rknn, 0 if components else MIN_WEIGHT_BITS[settings.precision])
    check_weight_formats(model.folder)
    selected = select_components(load_npu_spec(model.family), components)
    open_host(model, settings)
    require_same_model(model.folder, Artifact(output))
    quantized_model = open_quantized(model, output)
    solutions = (find_solution(quantized_model, name, settings) for name in selected)
    if settings.precision in SCHEME_EXAMPLES and not any(solutions):
        advice = _advise_scheme(settings.precision)
        raise UserError(f"{quantized_model.folder} has no {settings.precision} solution. {advice}")
    return model


def check_recipe(source: Path, recipe: Recipe) -> None:
    """Checks what a recipe says of the export to an NPU, before the pipeline is quantized by it.

    Args:
        source: A diffusers folder in its original precision, of a family that NPUs run.
        recipe: The recipe for a pipeline of this size, with a section `rknn`.

    Raises:
        UserError: Parts cannot be built as the recipe says, or not from what it quantizes.
    """
    settings = require_rknn_settings(recipe)
    _check_precision(settings)
    open_host(open_source(source), settings)
    schemes = recipe.quantize.extra_schemes.values()
    if settings.precision in SCHEME_EXAMPLES and not any(_is_suitable(scheme, settings) for scheme in schemes):
        problem = f"no scheme of the recipe is for it. {_advise_scheme(settings.precision)}"
        raise RecipeValueError("rknn.precision", settings.precision, problem)


def open_host(model: SourcePipeline, settings: RknnSettings) -> tuple[NpuSpec, NpuHost]:
    """Opens the graphs of a pipeline for the NPU, with those of the tiled decoder, and a host without embeddings.

    Raises:
        UserError: The settings do not suit the pipeline.
    """
    image_size = resolve_size(model, settings)
    npu = load_npu_spec(model.family)
    no_embeddings = np.empty((0, 0), np.float16)  # no prompt is encoded
    make_host = load_npu_host_class(npu)
    host = make_host(model.configs, image_size, settings.max_prompt_tokens, no_embeddings, settings.tile)
    npu = with_tiled_decoder(npu, host)
    absent = [name for name in settings.cpu if npu.graph(name) is None]
    if absent:
        graphs = ", ".join(graph.name for graph in npu.graphs)
        raise RecipeValueError("rknn.cpu", settings.cpu, f"unknown graph {absent[0]!r}. Choose from: {graphs}.")
    return npu, host


def _check_precision(settings: RknnSettings) -> None:
    if settings.precision == "w4a16" and settings.target != "rk3576":
        problem = f"the NPU of the {settings.target} does not support 4-bit weights. Choose fp16 or w8a8."
        raise RecipeValueError("rknn.precision", settings.precision, problem)


def _advise_scheme(precision: str) -> str:
    return f"Quantize with an extra scheme (quantize.extra_schemes: {{rknn: {SCHEME_EXAMPLES[precision]}}})."


def open_quantized(model: SourcePipeline, output: Path) -> SourcePipeline:
    """Opens the pipeline that 4- and 8-bit weights come from: the model of the artifact, if there is one."""
    return open_source(output) if Artifact(output).model.is_dir() else model


def select_components(npu: NpuSpec, components: Sequence[str]) -> list[str]:
    """Selects the components to export.

    Raises:
        UserError: One has no graph for the NPU.
    """
    known = list(dict.fromkeys(graph.component for graph in npu.graphs))
    unknown = [name for name in components if name not in known]
    if unknown:
        raise UserError(f"Unknown component {unknown[0]!r}. Choose from: {', '.join(known)}.")
    return [name for name in known if not components or name in components]


def resolve_size(model: SourcePipeline, settings: RknnSettings) -> tuple[int, int]:
    """Returns the height and width of the images, in pixels.

    Raises:
        UserError: The configs lack what the host reads of them, or the pipeline cannot generate such images.
    """
    check_host(model.folder, model.family)
    native_size = load_host(model.family, model.configs).native_resolution
    image_size = (native_size, native_size) if settings.size == "native" else settings.size
    with checking_key("rknn.size", settings.size):
        check_image_size(model.family, model.configs, *image_size)
    return image_size


def find_solution(model: SourcePipeline, component: str, settings: RknnSettings) -> tuple[Checkpoint, Scheme] | None:
    """Finds the first solution of a component, by name, whose scheme suits the precision."""
    for folder in solution_folders(model.folder, component):
        solution = Checkpoint(folder)
        scheme = Scheme.model_validate(solution.load_config().get("scheme", {}))
        if _is_suitable(scheme, settings):
            return solution, scheme
    return None


def _is_suitable(scheme: Scheme, settings: RknnSettings) -> bool:
    """Whether parts of the settings' precision can be built from weights that were quantized by a scheme."""
    if settings.precision == "fp16":
        return False
    is_eight_bit = settings.precision == "w8a8" or (settings.precision == "auto" and settings.target == "rk3588")
    return scheme.activations == "static" if is_eight_bit else scheme.bits == 4 and scheme.narrow_range
