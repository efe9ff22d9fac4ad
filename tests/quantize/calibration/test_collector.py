"""Statistics against a plain run with plain hooks; samples; and resuming interrupted calibrations."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import ZImageTransformer2DModel
from helpers.tiny import IMAGE_SIZE
from torch import Tensor

from edgepress.common.errors import UserError
from edgepress.common.progress import Progress, no_progress
from edgepress.pipelines.sampling import SamplingParams, batched, generate_images, load_pipeline
from edgepress.prompts.prompt import Prompt
from edgepress.quantize.calibration import collector, state
from edgepress.quantize.calibration.collector import compute_hessian_bytes, run_calibration
from edgepress.quantize.calibration.state import Calibration
from edgepress.quantize.calibration.streaming import stop_at_denoiser
from edgepress.quantize.plan import QuantBlock, QuantizationPlan, build_plan
from edgepress.quantize.workspace import Workspace, list_tensor_names, read_tensor
from edgepress.recipes.schema import QuantizationSettings, Scheme
from edgepress.storage.checkpoint import Checkpoint

SAMPLING = SamplingParams(height=IMAGE_SIZE, width=IMAGE_SIZE, steps=2, guidance=0.0)
ONE_STEP = replace(SAMPLING, steps=1)
PROMPTS = [Prompt(id=f"p{i}", prompt=text, language="en") for i, text in enumerate(("a cat", "two dogs", "rain", "no"))]
NUM_IMAGES = 3
BATCH_SIZE = 2  # of images and of prompts: batches of 2 and 1, and of 2 and 2
CALLS = 4  # of the denoiser: two batches, two steps
W8A8 = Scheme(bits=8, group_size="channel", symmetric=True, narrow_range=True, activations="dynamic")
ALL_HESSIANS, NO_HESSIANS = collector.HESSIAN_BYTES, 0  # bytes that H matrices of a component may take
MAX_MEMORY, LITTLE_MEMORY = 6 * 2**30, 1  # bytes: H matrices are in memory, or mapped from disk


def run(
    plan: QuantizationPlan,
    folder: Path,
    hessian_bytes: int = ALL_HESSIANS,
    progress: Progress = no_progress,
    sampling: SamplingParams = SAMPLING,
    dtype: torch.dtype = torch.float32,
    prompts: Sequence[Prompt] = PROMPTS,
    max_memory: int = MAX_MEMORY,
    **constants: float,
) -> Calibration:
    """A calibration in a workspace, with some of the collector's constants set."""
    workspace = Workspace(folder, "key")
    small = {"CALIBRATION_PIXELS": BATCH_SIZE * IMAGE_SIZE * IMAGE_SIZE, "PROMPTS_PER_BATCH": BATCH_SIZE}
    with pytest.MonkeyPatch.context() as patched, workspace.lock():
        for name, value in ({"HESSIAN_BYTES": hessian_bytes} | small | constants).items():
            patched.setattr(collector, name, value)
        return run_calibration(plan, workspace, prompts, NUM_IMAGES, sampling, dtype, max_memory, progress)


def iterate_inputs(plan: QuantizationPlan) -> Iterator[tuple[QuantBlock, str]]:
    """Every input of a fold's linears, with its block."""
    for block in plan.blocks:
        for fold in block.spec.folds:
            yield block, f"{block.component}.{block.path}.{fold.linears[0]}"


@pytest.fixture(scope="module")
def plan(tiny: Path) -> QuantizationPlan:
    """A plan that needs tokens too, since an extra scheme quantizes activations."""
    return build_plan(tiny, QuantizationSettings(method="gptq", extra_schemes={"w8a8": W8A8}))


@pytest.fixture(scope="module")
def calibration(plan: QuantizationPlan, tmp_path_factory: pytest.TempPathFactory) -> Calibration:
    """With H matrices of everything."""
    return run(plan, tmp_path_factory.mktemp("hessians"))


@pytest.fixture(scope="module")
def sampled_calibration(plan: QuantizationPlan, tmp_path_factory: pytest.TempPathFactory) -> Calibration:
    """With samples of 40 tokens instead."""
    return run(plan, tmp_path_factory.mktemp("samples"), NO_HESSIANS, TOKENS_PER_INPUT=40)


@pytest.fixture(scope="module")
def recorded(tiny: Path, plan: QuantizationPlan) -> dict[str, list[Tensor]]:
    """Everything that goes into (":in") and comes out of linears and blocks of the whole pipeline: tokens, by call.

    The text encoder reads each prompt alone, so that there is no padding, and under "padded ..." as in the pipeline.
    """
    pipeline = load_pipeline(tiny, torch.float32)
    calls: dict[str, list[Tensor]] = defaultdict(list)

    def record(name: str) -> Callable[..., None]:
        def hook(_: Any, args: Any, output: Any) -> None:
            calls[f"{name}:in"].append(args[0].flatten(0, -2).clone())
            calls[name].append(output.flatten(0, -2).clone())

        return hook

    def observe(component: str, kind: str = "") -> list[Any]:
        model = getattr(pipeline, component)
        blocks = [block for block in plan.blocks if block.component == component]
        paths = [path for block in blocks for path in (block.path, *block.linears)]
        return [model.get_submodule(path).register_forward_hook(record(f"{kind}{component}.{path}")) for path in paths]

    handles = observe("text_encoder")
    for prompt in PROMPTS:
        chat = [{"role": "user", "content": prompt.prompt}]
        text = pipeline.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        with torch.no_grad():
            pipeline.text_encoder(input_ids=torch.tensor([pipeline.tokenizer(text).input_ids]))
    for handle in handles:
        handle.remove()
    handles = observe("transformer")
    for batch in batched(PROMPTS[:NUM_IMAGES], BATCH_SIZE):
        generate_images(pipeline, batch, SAMPLING, output_type="latent")
    for handle in handles:
        handle.remove()
    observe("text_encoder", "padded ")
    for batch in batched(PROMPTS, BATCH_SIZE):
        with stop_at_denoiser(pipeline.transformer):
            generate_images(pipeline, batch, SAMPLING, output_type="latent")
    return calls


def compute_hessian(tokens: list[Tensor]) -> Tensor:
    x = torch.cat(tokens).double()
    return x.T @ x / len(x)


def assert_near(a: Tensor, b: Tensor, limit: float, name: str) -> None:
    error = float((a.double() - b.double()).norm() / b.double().norm())
    assert error < limit, f"{name}: off by {error:.2e}"


def assert_same(plan: QuantizationPlan, a: Calibration, b: Calibration) -> None:
    """To the bit."""
    assert a.abs_max_by_module == b.abs_max_by_module
    for block, name in iterate_inputs(plan):
        assert torch.equal(a.mean_abs(name), b.mean_abs(name)), name
        assert torch.equal(a.hessian(block, name), b.hessian(block, name)), name
        assert torch.equal(a.abs_max(name), b.abs_max(name)), name
        assert torch.equal(a.tokens(block, name), b.tokens(block, name)), name


# ---------------------------------------------------------------- statistics


def test_hessians_are_means_over_all_real_tokens_of_all_steps(
    plan: QuantizationPlan, calibration: Calibration, recorded: dict[str, list[Tensor]]
) -> None:
    names = list(iterate_inputs(plan))
    assert len(names) == 5 * 4
    for block, name in names:
        assert len(recorded[f"{name}:in"]) == (len(PROMPTS) if block.component == "text_encoder" else CALLS)
        assert_near(calibration.hessian(block, name), compute_hessian(recorded[f"{name}:in"]), 1e-5, name)


def test_magnitudes_are_means_over_the_same_tokens(
    plan: QuantizationPlan, calibration: Calibration, recorded: dict[str, list[Tensor]]
) -> None:
    for _, name in iterate_inputs(plan):
        assert_near(calibration.mean_abs(name), torch.cat(recorded[f"{name}:in"]).double().abs().mean(0), 1e-5, name)


def test_the_largest_values_of_channels_are_those_of_the_same_tokens(
    plan: QuantizationPlan, calibration: Calibration, recorded: dict[str, list[Tensor]]
) -> None:
    for _, name in iterate_inputs(plan):
        assert_near(calibration.abs_max(name), torch.cat(recorded[f"{name}:in"]).abs().amax(0), 1e-5, name)


def test_abs_max_by_module_is_that_of_outputs_and_inputs(
    plan: QuantizationPlan, calibration: Calibration, recorded: dict[str, list[Tensor]]
) -> None:
    """Of padding too: NaN there would spread with the next attention."""
    outputs = {f"{block.component}.{path}" for block in plan.blocks for path in (block.path, *block.linears)}
    assert calibration.abs_max_by_module.keys() == outputs | {f"{name}:in" for _, name in iterate_inputs(plan)}
    for name, peak in calibration.abs_max_by_module.items():
        largest = float(torch.cat(recorded[name]).abs().max())
        # Padding in the text encoder's batches counts as well, but was not recorded.
        assert peak >= largest * (1 - 1e-4), name
        assert name.startswith("text_encoder") or peak == pytest.approx(largest, rel=1e-4), name


def test_padding_would_change_the_statistics(tiny: Path, plan: QuantizationPlan, calibration: Calibration) -> None:
    """The text encoder gets 512 tokens per prompt; with all of them its statistics would be different."""
    block, name = next(iterate_inputs(plan))
    tokens: list[Tensor] = []
    pipeline = load_pipeline(tiny, torch.float32)
    linear = pipeline.text_encoder.get_submodule(name.removeprefix("text_encoder."))
    linear.register_forward_pre_hook(lambda _, args: tokens.append(args[0].flatten(0, -2).clone()))
    generate_images(pipeline, PROMPTS[:1], SamplingParams(IMAGE_SIZE, IMAGE_SIZE, 1, 0.0), output_type="latent")
    assert len(torch.cat(tokens)) == 512
    padded = compute_hessian(tokens)
    assert (padded - calibration.hessian(block, name)).norm() > 0.1 * padded.norm()


def test_batched_prompts_give_the_statistics_of_single_prompts(plan: QuantizationPlan, tmp_path: Path) -> None:
    """The denoiser pads what is shorter than the longest prompt of a batch, and masks it."""
    long = Prompt(id="long", prompt="a very long striped wall " * 5, language="en")
    single, batch = (
        run(
            plan,
            tmp_path / str(size),
            prompts=[long, *PROMPTS[:2]],
            sampling=ONE_STEP,
            CALIBRATION_PIXELS=size * IMAGE_SIZE * IMAGE_SIZE,
        )
        for size in (1, 3)
    )
    for block, name in iterate_inputs(plan):
        assert_near(batch.hessian(block, name), single.hessian(block, name), 1e-3, name)


def test_in_bfloat16_statistics_are_nearly_the_same(
    plan: QuantizationPlan, calibration: Calibration, tmp_path: Path
) -> None:
    rough = run(plan, tmp_path, dtype=torch.bfloat16)
    for block, name in iterate_inputs(plan):
        assert_near(rough.hessian(block, name), calibration.hessian(block, name), 0.05, name)


def test_any_number_of_threads_gives_the_same_statistics(tiny: Path, tmp_path: Path) -> None:
    """Of the denoiser in bfloat16; in float32 a whole quantization is compared."""
    plan = build_plan(
        tiny, QuantizationSettings(method="gptq", components=("transformer",), extra_schemes={"w8a8": W8A8})
    )
    results = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            options: dict[str, Any] = {"dtype": torch.bfloat16, "sampling": ONE_STEP, "prompts": PROMPTS[:2]}
            results.append(run(plan, tmp_path / str(threads), **options))
    finally:
        torch.set_num_threads(before)
    assert_same(plan, *results)


def test_an_unquantized_component_is_not_observed(tiny: Path, tmp_path: Path) -> None:
    only = run(build_plan(tiny, QuantizationSettings(method="gptq", components=("text_encoder",))), tmp_path)
    assert {name.split(".")[0] for name in only.abs_max_by_module} == {"text_encoder"}


# ---------------------------------------------------------------- samples


def test_the_size_of_hessians(plan: QuantizationPlan) -> None:
    """Of two layers with inputs of 128, 128, 128 and 256, and three blocks of 384, 384, 384 and 1024, in float32."""
    for name, numbers in (("text_encoder", 2 * (3 * 128**2 + 256**2)), ("transformer", 3 * (3 * 384**2 + 1024**2))):
        assert compute_hessian_bytes(plan.get_component(name)) == 4 * numbers


def test_with_little_memory_the_statistics_are_the_same(
    plan: QuantizationPlan, calibration: Calibration, tmp_path: Path
) -> None:
    """H matrices are then mapped from files, of which none is left."""
    assert_same(plan, run(plan, tmp_path, max_memory=LITTLE_MEMORY), calibration)
    assert not [file for file in (tmp_path / ".work" / "key").iterdir() if file.name.startswith("tmp")]


def test_a_sample_of_all_tokens_gives_the_same_statistics(
    plan: QuantizationPlan, calibration: Calibration, tmp_path: Path
) -> None:
    sampled = run(plan, tmp_path, NO_HESSIANS, TOKENS_PER_INPUT=10**6)
    assert sampled.abs_max_by_module == calibration.abs_max_by_module
    for block, name in iterate_inputs(plan):
        assert torch.equal(sampled.mean_abs(name), calibration.mean_abs(name)), name
        assert_near(sampled.hessian(block, name), calibration.hessian(block, name), 1e-5, name)


def test_a_smaller_sample_gives_roughly_the_same(
    plan: QuantizationPlan, calibration: Calibration, tmp_path: Path
) -> None:
    """About a third of the tokens."""
    sampled = run(plan, tmp_path, NO_HESSIANS, TOKENS_PER_INPUT=100)
    for block, name in iterate_inputs(plan):
        assert torch.equal(sampled.mean_abs(name), calibration.mean_abs(name)), name
        if block.component == "transformer":
            assert_near(sampled.hessian(block, name).diagonal(), calibration.hessian(block, name).diagonal(), 0.3, name)
            assert_near(sampled.hessian(block, name), calibration.hessian(block, name), 0.5, name)


def test_every_call_samples_equally_many_of_its_own_tokens(
    plan: QuantizationPlan, recorded: dict[str, list[Tensor]], tmp_path: Path
) -> None:
    run(plan, tmp_path, NO_HESSIANS, TOKENS_PER_INPUT=18)
    workspace = Workspace(tmp_path, "key")
    drawn = set()
    for block, name in iterate_inputs(plan):
        calls = 2 if block.component == "text_encoder" else CALLS
        sample = [read_tensor(file, name) for file in workspace.sample_files(block.name)]
        assert [len(tokens) for tokens in sample] == [-(-18 // calls)] * calls, name
        if block.component == "transformer":
            for tokens, all_tokens in zip(sample, recorded[f"{name}:in"], strict=True):
                matches = (tokens[:, None] == all_tokens).all(-1)
                assert matches.any(1).all(), f"{name}: a token that the call did not have"
                drawn.add(tuple(matches.int().argmax(1).tolist()))
    assert len(drawn) > CALLS, "all inputs and calls draw the same tokens"


def test_every_call_samples_equally_many_tokens_beside_a_hessian(
    plan: QuantizationPlan, recorded: dict[str, list[Tensor]], tmp_path: Path
) -> None:
    few = run(plan, tmp_path, ACTIVATION_TOKENS=18)
    for block, name in iterate_inputs(plan):
        calls = 2 if block.component == "text_encoder" else CALLS
        count, sample = -(-18 // calls), few.tokens(block, name)
        assert len(sample) == count * calls, name
        if block.component == "transformer":
            for tokens, all_tokens in zip(sample.split(count), recorded[f"{name}:in"], strict=True):
                assert (tokens[:, None] == all_tokens).all(-1).any(1).all(), name


def test_tokens_are_part_of_a_sample_where_there_is_one(
    plan: QuantizationPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state, "ACTIVATION_TOKENS", 100)
    sampled = run(plan, tmp_path, NO_HESSIANS, TOKENS_PER_INPUT=400)
    workspace = Workspace(tmp_path, "key")
    for block, name in iterate_inputs(plan):
        sample = torch.cat([read_tensor(file, name) for file in workspace.sample_files(block.name)])
        assert torch.equal(sampled.tokens(block, name), sample[:: max(1, len(sample) // 100)])


def test_no_token_is_stored_where_no_scheme_quantizes_activations(tiny: Path, tmp_path: Path) -> None:
    run(build_plan(tiny, QuantizationSettings(method="gptq", components=("text_encoder",))), tmp_path)
    names = list_tensor_names(Workspace(tmp_path, "key").statistics_file)
    assert not [name for name in names if name.endswith("/tokens")]


def test_hessians_of_one_component_are_stored_beside_samples_of_another(
    plan: QuantizationPlan, calibration: Calibration, tmp_path: Path
) -> None:
    """With 4 MB the text encoder's H matrices fit, the transformer's do not."""
    mixed = run(plan, tmp_path, 4 * 10**6)
    workspace = Workspace(tmp_path, "key")
    for block, name in iterate_inputs(plan):
        if block.component == "text_encoder":
            assert not workspace.sample_files(block.name)
            assert torch.equal(mixed.hessian(block, name), calibration.hessian(block, name))
        else:
            assert len(workspace.sample_files(block.name)) == CALLS


def test_with_guidance_a_sample_has_tokens_of_prompts_and_of_negative_prompts(
    plan: QuantizationPlan, tmp_path: Path
) -> None:
    """The text encoder then runs twice per batch."""
    guided = replace(ONE_STEP, guidance=3.0)
    whole = run(plan, tmp_path / "whole", sampling=guided)
    sampled = run(plan, tmp_path / "sampled", NO_HESSIANS, sampling=guided, TOKENS_PER_INPUT=10**6)
    for block, name in iterate_inputs(plan):
        assert torch.equal(sampled.mean_abs(name), whole.mean_abs(name)), name
        assert_near(sampled.hessian(block, name), whole.hessian(block, name), 1e-5, name)


# ---------------------------------------------------------------- resuming


class KilledError(BaseException):
    """Stands for kill -9 at an exact moment; nothing in the package catches it."""


TEXT_REPORTS = 1 + 2 * 2  # the start, and two layers in each of two batches
ALL_REPORTS = TEXT_REPORTS + 1 + 3 * CALLS  # the start, and three blocks in each call


def kill_at(report: int) -> Progress:
    """A progress that kills the run at its n-th report."""
    count = 0

    def progress(*_: Any) -> None:
        nonlocal count
        count += 1
        if count == report:
            raise KilledError

    return progress


class DenoiserCalls:
    """Counts computed calls of the denoiser, which begin with reading its first block from disk."""

    def __init__(self, patched: pytest.MonkeyPatch) -> None:
        self.count = 0
        load_tensors = Checkpoint.load_tensors

        def load_and_count(checkpoint: Checkpoint, names: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
            for name, tensor in load_tensors(checkpoint, names):
                self.count += name == "noise_refiner.0.feed_forward.w2.weight"
                yield name, tensor

        patched.setattr(Checkpoint, "load_tensors", load_and_count)


def test_progress_counts_the_blocks_of_both_stages(plan: QuantizationPlan, tmp_path: Path) -> None:
    reports: list[tuple[str, int, int]] = []
    run(plan, tmp_path, progress=lambda *report: reports.append(report))
    texts = [("calibrating on prompts", done, 4) for done in range(5)]
    assert reports == texts + [("calibrating on images", done, 3 * CALLS) for done in range(3 * CALLS + 1)]


@pytest.mark.parametrize(
    ("memory", "report"),
    [
        (ALL_HESSIANS, 4),
        (ALL_HESSIANS, 9),
        (ALL_HESSIANS, 14),
        (ALL_HESSIANS, 18),
        (NO_HESSIANS, 5),
        (NO_HESSIANS, 10),
        (NO_HESSIANS, 17),
    ],
)
def test_killed_anywhere_it_resumes_to_the_same_statistics(
    plan: QuantizationPlan,
    calibration: Calibration,
    sampled_calibration: Calibration,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    memory: int,
    report: int,
) -> None:
    """Saved after every call; a call is finished when its third block has been reported and nothing was raised."""
    with pytest.raises(KilledError):
        run(plan, tmp_path / "killed", memory, kill_at(report), TOKENS_PER_INPUT=40, SAVE_INTERVAL_S=-1)
    computed = DenoiserCalls(monkeypatch)
    reports: list[tuple[str, int, int]] = []
    resumed = run(
        plan,
        tmp_path / "killed",
        memory,
        lambda *report: reports.append(report),
        TOKENS_PER_INPUT=40,
        SAVE_INTERVAL_S=-1,
    )
    assert_same(plan, resumed, calibration if memory else sampled_calibration)
    finished = max(0, (report - TEXT_REPORTS - 2) // 3)
    assert computed.count == CALLS - finished
    assert ("calibrating on images", 3 * finished, 3 * CALLS) in reports
    assert ("calibrating on images", 3 * finished - 1, 3 * CALLS) not in reports


@pytest.mark.slow
@pytest.mark.parametrize("memory", [ALL_HESSIANS, NO_HESSIANS])
def test_killed_again_and_again_it_ends_with_the_same_statistics(
    plan: QuantizationPlan, calibration: Calibration, sampled_calibration: Calibration, tmp_path: Path, memory: int
) -> None:
    """Attempt n is killed at its n-th report; every other attempt saves nothing on the way."""
    for attempt in range(2, 100):
        try:
            resumed = run(
                plan,
                tmp_path / "killed",
                memory,
                kill_at(attempt),
                TOKENS_PER_INPUT=40,
                SAVE_INTERVAL_S=-1 if attempt % 2 else 99,
            )
            break
        except KilledError:
            pass
    assert attempt > 4
    assert_same(plan, resumed, calibration if memory else sampled_calibration)


def test_a_finished_calibration_is_not_repeated(
    plan: QuantizationPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(plan, tmp_path)
    monkeypatch.setattr(collector, "load_streaming_pipeline", lambda *_: pytest.fail("the pipeline was loaded"))
    assert_same(plan, run(plan, tmp_path), first)


def test_tokens_that_were_not_saved_are_counted_once(
    plan: QuantizationPlan, calibration: Calibration, tmp_path: Path
) -> None:
    """Killed before images were first saved: what was added in memory alone is added again."""
    with pytest.raises(KilledError):
        run(plan, tmp_path, progress=kill_at(ALL_REPORTS - 1), SAVE_INTERVAL_S=99)
    assert_same(plan, run(plan, tmp_path), calibration)


# ---------------------------------------------------------------- errors


def test_activations_that_are_not_finite_are_named_and_never_stored(
    plan: QuantizationPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_tensors = Checkpoint.load_tensors

    def load_broken(checkpoint: Checkpoint, names: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
        for name, tensor in load_tensors(checkpoint, names):
            yield name, tensor * torch.inf if name == "layers.0.attention_norm1.weight" else tensor

    monkeypatch.setattr(Checkpoint, "load_tensors", load_broken)
    with pytest.raises(UserError, match=r"NaN or infinite activations at the input of transformer\.layers\.0\."):
        run(plan, tmp_path, SAVE_INTERVAL_S=-1)
    names = list_tensor_names(Workspace(tmp_path, "key").statistics_file)
    assert not any(name.startswith("transformer.") for name in names)


# ---------------------------------------------------------------- weights outside of their blocks


def patch_denoiser(monkeypatch: pytest.MonkeyPatch, before: Callable[[Any], object]) -> None:
    """Lets the denoiser call a function with itself before it runs."""
    forward = ZImageTransformer2DModel.forward

    def patched(self: Any, *args: Any, **kwargs: Any) -> Any:
        before(self)
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(ZImageTransformer2DModel, "forward", patched)


def test_weights_that_are_used_outside_of_their_block_are_kept_in_memory(
    plan: QuantizationPlan,
    calibration: Calibration,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    patch_denoiser(monkeypatch, lambda model: float(model.layers[0].feed_forward.w2.weight[0, 0]))
    in_memory = run(plan, tmp_path / "in memory")
    assert "uses weights of its blocks outside of them" in caplog.text
    assert in_memory.abs_max_by_module == calibration.abs_max_by_module


def test_other_errors_are_not_taken_for_that(
    plan: QuantizationPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: Any) -> None:
        raise RuntimeError("the metadata of the cache are corrupt")

    patch_denoiser(monkeypatch, fail)
    with pytest.raises(RuntimeError, match="metadata of the cache"):
        run(plan, tmp_path / "failed", prompts=PROMPTS[:1], sampling=ONE_STEP)
    assert "outside of them" not in caplog.text
