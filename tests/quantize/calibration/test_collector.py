"""Statistics against a plain run with plain hooks; samples, and what a cut leaves."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.tiny import IMAGE_SIZE
from torch import Tensor

import edgepress.quantize.calibration.collector as module
from edgepress.common.errors import UserError
from edgepress.common.progress import Progress, no_progress
from edgepress.pipelines.sampling import SamplingParams, batched, generate_images, load_pipeline
from edgepress.prompts.prompt import Prompt
from edgepress.quantize.calibration.collector import hessians_fit, run_calibration
from edgepress.quantize.calibration.state import Calibration
from edgepress.quantize.calibration.streaming import stop_at_denoiser
from edgepress.quantize.plan import QuantBlock, QuantizationPlan, build_plan
from edgepress.quantize.workspace import Workspace, locked
from edgepress.recipes.schema import QuantizationSettings, Scheme
from edgepress.storage.checkpoint import Checkpoint

SAMPLING = SamplingParams(height=IMAGE_SIZE, width=IMAGE_SIZE, steps=2, guidance=0.0)
PROMPTS = [Prompt(id=f"p{i}", prompt=text, language="en") for i, text in enumerate(("a cat", "two dogs", "rain", "no"))]
PAINTED = 3
TOGETHER = 2  # pictures painted, and prompts read, at once: batches of 2 and 1, and of 2 and 2
CALLS = 4  # of the denoiser: two batches, two steps
ROUNDING = Scheme(bits=8, group_size="channel", zero_point=False, narrow_range=True, activations="dynamic")
PLENTY, LITTLE = 6 * 2**30, 1  # bytes: all Gram matrices fit, none does


def run(
    plan: QuantizationPlan,
    folder: Path,
    memory: int = PLENTY,
    progress: Progress = no_progress,
    sampling: SamplingParams = SAMPLING,
    dtype: torch.dtype = torch.float32,
    prompts: Sequence[Prompt] = PROMPTS,
    **constants: float,
) -> Calibration:
    """A calibration in a work folder, with some of its module's constants set."""
    work = Workspace(folder, "key")
    small = {"PICTURES": TOGETHER * IMAGE_SIZE * IMAGE_SIZE, "PROMPTS_AT_ONCE": TOGETHER}
    with pytest.MonkeyPatch.context() as patched, locked(work):
        for name, value in (small | constants).items():
            patched.setattr(module, name, value)
        return run_calibration(plan, work, prompts, PAINTED, sampling, dtype, memory, progress)


def inputs_of(plan: QuantizationPlan) -> Iterator[tuple[QuantBlock, str]]:
    """Every input that a fold leads into."""
    for unit in plan.blocks:
        for fold in unit.spec.folds:
            yield unit, f"{unit.component}.{unit.path}.{fold.linears[0]}"


@pytest.fixture(scope="module")
def plan(tiny: Path) -> QuantizationPlan:
    """Which asks for tokens too: a further grid rounds activations."""
    return build_plan(tiny, QuantizationSettings(extra_schemes={"bytes": ROUNDING}))


@pytest.fixture(scope="module")
def found(plan: QuantizationPlan, tmp_path_factory: pytest.TempPathFactory) -> Calibration:
    """Gram matrices of everything."""
    return run(plan, tmp_path_factory.mktemp("grams"))


@pytest.fixture(scope="module")
def seen(tiny: Path, plan: QuantizationPlan) -> dict[str, list[Tensor]]:
    """All that goes into (":in") and comes out of linears and blocks of the whole pipeline: tokens, call by call.

    The text encoder reads each prompt by itself, so that there is no padding; and, under "padded ...", as the pipeline
    has it read them.
    """
    pipeline = load_pipeline(tiny, torch.float32)
    calls: dict[str, list[Tensor]] = defaultdict(list)

    def record(name: str) -> Callable[..., None]:
        def hook(_: Any, args: Any, output: Any) -> None:
            calls[f"{name}:in"].append(args[0].flatten(0, -2).clone())
            calls[name].append(output.flatten(0, -2).clone())

        return hook

    def watch(component: str, kind: str = "") -> list[Any]:
        model = getattr(pipeline, component)
        units = [unit for unit in plan.blocks if unit.component == component]
        paths = [path for unit in units for path in (unit.path, *unit.linears)]
        return [model.get_submodule(path).register_forward_hook(record(f"{kind}{component}.{path}")) for path in paths]

    handles = watch("text_encoder")
    for prompt in PROMPTS:
        chat = [{"role": "user", "content": prompt.prompt}]
        text = pipeline.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        with torch.no_grad():
            pipeline.text_encoder(input_ids=torch.tensor([pipeline.tokenizer(text).input_ids]))
    for handle in handles:
        handle.remove()
    handles = watch("transformer")
    for batch in batched(PROMPTS[:PAINTED], TOGETHER):
        generate_images(pipeline, batch, SAMPLING, output_type="latent")
    for handle in handles:
        handle.remove()
    watch("text_encoder", "padded ")
    for batch in batched(PROMPTS, TOGETHER):
        with stop_at_denoiser(pipeline.transformer):
            generate_images(pipeline, batch, SAMPLING, output_type="latent")
    return calls


def gram_by_hand(tokens: list[Tensor]) -> Tensor:
    x = torch.cat(tokens).double()
    return x.T @ x / len(x)


def assert_near(a: Tensor, b: Tensor, limit: float, name: str) -> None:
    error = float((a.double() - b.double()).norm() / b.double().norm())
    assert error < limit, f"{name}: off by {error:.2e}"


def assert_same(plan: QuantizationPlan, a: Calibration, b: Calibration) -> None:
    """To the bit."""
    assert a.abs_max_by_module == b.abs_max_by_module
    for unit, name in inputs_of(plan):
        assert torch.equal(a.mean_abs(name), b.mean_abs(name)), name
        assert torch.equal(a.hessian(unit, name), b.hessian(unit, name)), name
        assert torch.equal(a.abs_max(name), b.abs_max(name)), name
        assert torch.equal(a.tokens(unit, name), b.tokens(unit, name)), name


# ---------------------------------------------------------------- Gram matrices


def test_gram_matrices_are_means_over_all_real_tokens_of_all_steps(
    plan: QuantizationPlan, found: Calibration, seen: dict[str, list[Tensor]]
) -> None:
    names = list(inputs_of(plan))
    assert len(names) == 5 * 4
    for unit, name in names:
        assert len(seen[f"{name}:in"]) == (len(PROMPTS) if unit.component == "text_encoder" else CALLS)
        assert_near(found.hessian(unit, name), gram_by_hand(seen[f"{name}:in"]), 1e-5, name)


def test_magnitudes_are_means_over_the_same_tokens(
    plan: QuantizationPlan, found: Calibration, seen: dict[str, list[Tensor]]
) -> None:
    for _, name in inputs_of(plan):
        assert_near(found.mean_abs(name), torch.cat(seen[f"{name}:in"]).double().abs().mean(0), 1e-5, name)


def test_the_largest_values_of_channels_are_those_of_the_same_tokens(
    plan: QuantizationPlan, found: Calibration, seen: dict[str, list[Tensor]]
) -> None:
    for _, name in inputs_of(plan):
        assert_near(found.abs_max(name), torch.cat(seen[f"{name}:in"]).abs().amax(0), 1e-5, name)


def test_peaks_are_the_largest_values_of_outputs_and_inputs(
    plan: QuantizationPlan, found: Calibration, seen: dict[str, list[Tensor]]
) -> None:
    """Of padding too: what is not a number there would be none elsewhere after the next attention."""
    outputs = {f"{unit.component}.{path}" for unit in plan.blocks for path in (unit.path, *unit.linears)}
    assert found.abs_max_by_module.keys() == outputs | {f"{name}:in" for _, name in inputs_of(plan)}
    for name, peak in found.abs_max_by_module.items():
        largest = float(torch.cat(seen[name]).abs().max())
        # Padding of the text encoder's batch counts as well, and is not among what was seen.
        assert peak >= largest * (1 - 1e-4), name
        assert name.startswith("text_encoder") or peak == pytest.approx(largest, rel=1e-4), name


def test_padding_would_have_shown(tiny: Path, plan: QuantizationPlan, found: Calibration) -> None:
    """The text encoder is given 512 tokens a prompt; with all of them its statistics would be others."""
    unit, name = next(inputs_of(plan))
    tokens: list[Tensor] = []
    pipeline = load_pipeline(tiny, torch.float32)
    linear = pipeline.text_encoder.get_submodule(name.removeprefix("text_encoder."))
    linear.register_forward_pre_hook(lambda _, args: tokens.append(args[0].flatten(0, -2).clone()))
    generate_images(pipeline, PROMPTS[:1], SamplingParams(IMAGE_SIZE, IMAGE_SIZE, 1, 0.0), output_type="latent")
    assert len(torch.cat(tokens)) == 512
    padded = gram_by_hand(tokens)
    assert (padded - found.hessian(unit, name)).norm() > 0.1 * padded.norm()


def test_prompts_painted_together_leave_the_statistics_of_prompts_painted_alone(
    plan: QuantizationPlan, tmp_path: Path
) -> None:
    """The denoiser pads what is shorter than the longest prompt of a batch, and masks it."""
    long = Prompt(id="long", prompt="a very long striped wall " * 5, language="en")
    alone, together = (
        run(plan, tmp_path / str(count), prompts=[long, *PROMPTS], PICTURES=count * IMAGE_SIZE * IMAGE_SIZE)
        for count in (1, 3)
    )
    for unit, name in inputs_of(plan):
        assert_near(together.hessian(unit, name), alone.hessian(unit, name), 1e-3, name)


def test_in_bfloat16_statistics_are_nearly_the_same(plan: QuantizationPlan, found: Calibration, tmp_path: Path) -> None:
    rough = run(plan, tmp_path, dtype=torch.bfloat16)
    for unit, name in inputs_of(plan):
        assert_near(rough.hessian(unit, name), found.hessian(unit, name), 0.05, name)


def test_a_component_that_is_not_pressed_is_not_watched(tiny: Path, tmp_path: Path) -> None:
    only = run(build_plan(tiny, QuantizationSettings(components=("text_encoder",))), tmp_path)
    assert {name.split(".")[0] for name in only.abs_max_by_module} == {"text_encoder"}


# ---------------------------------------------------------------- samples


def test_gram_matrices_fit_a_quarter_of_the_memory_or_are_not_kept(plan: QuantizationPlan) -> None:
    """Of two layers with inputs of 128, 128, 128 and 256, and three blocks of 384, 384, 384 and 1024, in float32."""
    for name, needed in (("text_encoder", 2 * (3 * 128**2 + 256**2)), ("transformer", 3 * (3 * 384**2 + 1024**2))):
        part = plan.get_component(name)
        assert hessians_fit(part, 4 * 4 * needed)
        assert not hessians_fit(part, 4 * 4 * needed - 1)


def test_a_sample_of_all_tokens_gives_the_same_statistics(
    plan: QuantizationPlan, found: Calibration, tmp_path: Path
) -> None:
    sampled = run(plan, tmp_path, LITTLE, SAMPLE_TOKENS=10**6)
    assert sampled.abs_max_by_module == found.abs_max_by_module
    for unit, name in inputs_of(plan):
        assert torch.equal(sampled.mean_abs(name), found.mean_abs(name)), name
        assert_near(sampled.hessian(unit, name), found.hessian(unit, name), 1e-5, name)


def test_a_smaller_sample_gives_roughly_the_same(plan: QuantizationPlan, found: Calibration, tmp_path: Path) -> None:
    """About a third of the tokens."""
    sampled = run(plan, tmp_path, LITTLE, SAMPLE_TOKENS=100)
    for unit, name in inputs_of(plan):
        assert torch.equal(sampled.mean_abs(name), found.mean_abs(name)), name
        if unit.component == "transformer":
            assert_near(sampled.hessian(unit, name).diagonal(), found.hessian(unit, name).diagonal(), 0.3, name)
            assert_near(sampled.hessian(unit, name), found.hessian(unit, name), 0.5, name)


def test_every_call_leaves_as_many_tokens_drawn_from_its_own(
    plan: QuantizationPlan, seen: dict[str, list[Tensor]], tmp_path: Path
) -> None:
    run(plan, tmp_path, LITTLE, SAMPLE_TOKENS=18)
    work = Workspace(tmp_path, "key")
    drawn = set()
    for unit, name in inputs_of(plan):
        calls = 2 if unit.component == "text_encoder" else CALLS
        kept = [work.read_tensor(file, name) for file in work.sample_files(unit.name)]
        assert [len(tokens) for tokens in kept] == [-(-18 // calls)] * calls, name
        if unit.component == "transformer":
            for tokens, all_tokens in zip(kept, seen[f"{name}:in"], strict=True):
                found = (tokens[:, None] == all_tokens).all(-1)
                assert found.any(1).all(), f"{name}: a token that the call did not have"
                drawn.add(tuple(found.int().argmax(1).tolist()))
    assert len(drawn) > CALLS, "all inputs and calls draw the same tokens"


def test_every_call_leaves_as_many_tokens_beside_a_gram_matrix(
    plan: QuantizationPlan, seen: dict[str, list[Tensor]], tmp_path: Path
) -> None:
    few = run(plan, tmp_path, TOKENS=18)
    for unit, name in inputs_of(plan):
        calls = 2 if unit.component == "text_encoder" else CALLS
        quota, kept = -(-18 // calls), few.tokens(unit, name)
        assert len(kept) == quota * calls, name
        if unit.component == "transformer":
            for tokens, all_tokens in zip(kept.split(quota), seen[f"{name}:in"], strict=True):
                assert (tokens[:, None] == all_tokens).all(-1).any(1).all(), name


def test_tokens_are_some_of_a_sample_where_there_is_one(
    plan: QuantizationPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TOKENS", 100)
    sampled = run(plan, tmp_path, LITTLE, SAMPLE_TOKENS=400)
    work = Workspace(tmp_path, "key")
    for unit, name in inputs_of(plan):
        sample = torch.cat([work.read_tensor(file, name) for file in work.sample_files(unit.name)])
        assert torch.equal(sampled.tokens(unit, name), sample[:: max(1, len(sample) // 100)])


def test_no_token_is_kept_where_no_grid_rounds_activations(tiny: Path, tmp_path: Path) -> None:
    run(build_plan(tiny, QuantizationSettings(components=("text_encoder",))), tmp_path)
    stored = Workspace(tmp_path, "key")
    assert not [name for name in stored.tensor_names(stored.statistics_file) if name.endswith("/tokens")]


def test_what_fits_is_kept_whole_beside_samples(plan: QuantizationPlan, found: Calibration, tmp_path: Path) -> None:
    """With 16 MB the text encoder's Gram matrices fit, the transformer's do not."""
    mixed = run(plan, tmp_path, 16 * 10**6)
    work = Workspace(tmp_path, "key")
    for unit, name in inputs_of(plan):
        if unit.component == "text_encoder":
            assert not work.sample_files(unit.name)
            assert torch.equal(mixed.hessian(unit, name), found.hessian(unit, name))
        else:
            assert len(work.sample_files(unit.name)) == CALLS


def test_with_guidance_a_sample_holds_tokens_of_prompts_and_of_negative_prompts(
    plan: QuantizationPlan, tmp_path: Path
) -> None:
    """The text encoder is then called twice a batch."""
    guided = SamplingParams(IMAGE_SIZE, IMAGE_SIZE, 2, 3.0)
    whole = run(plan, tmp_path / "whole", sampling=guided)
    sampled = run(plan, tmp_path / "sampled", LITTLE, sampling=guided, SAMPLE_TOKENS=10**6)
    for unit, name in inputs_of(plan):
        assert torch.equal(sampled.mean_abs(name), whole.mean_abs(name)), name
        assert_near(sampled.hessian(unit, name), whole.hessian(unit, name), 1e-5, name)


# ---------------------------------------------------------------- cuts


class KilledError(BaseException):
    """Stands for kill -9 at an exact moment; nothing in the package catches it."""


TEXT_REPORTS = 1 + 2 * 2  # the first word, and two layers in each of two batches
ALL_REPORTS = TEXT_REPORTS + 1 + 3 * CALLS  # the first word, and three blocks in each call


def cut_at(report: int) -> Progress:
    """A progress that kills the run at its n-th report."""
    count = 0

    def progress(*_: Any) -> None:
        nonlocal count
        count += 1
        if count == report:
            raise KilledError

    return progress


class Computed:
    """Counts what is computed of the denoiser: calls begin with reading the first block from disk."""

    def __init__(self, patched: pytest.MonkeyPatch) -> None:
        self.calls = 0
        tensor = Checkpoint.load_tensor

        def counting(checkpoint: Checkpoint, name: str) -> Tensor:
            self.calls += name == "noise_refiner.0.feed_forward.w2.weight"
            return tensor(checkpoint, name)

        patched.setattr(Checkpoint, "tensor", counting)


def test_progress_counts_the_blocks_of_both_stages(plan: QuantizationPlan, tmp_path: Path) -> None:
    said: list[tuple[str, int, int]] = []
    run(plan, tmp_path, progress=lambda *words: said.append(words))
    texts = [("calibrating on prompts", done, 4) for done in range(5)]
    assert said == texts + [("calibrating on pictures", done, 3 * CALLS) for done in range(3 * CALLS + 1)]


@pytest.mark.parametrize(
    ("memory", "report"),
    [(PLENTY, 4), (PLENTY, 9), (PLENTY, 14), (PLENTY, 18), (LITTLE, 5), (LITTLE, 10), (LITTLE, 17)],
)
def test_cut_anywhere_it_goes_on_to_the_same_statistics(
    plan: QuantizationPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory: int, report: int
) -> None:
    """Saved after every call; a call is finished when its third block has been reported and nothing was raised."""
    whole = run(plan, tmp_path / "whole", memory, SAMPLE_TOKENS=40)
    with pytest.raises(KilledError):
        run(plan, tmp_path / "cut", memory, cut_at(report), SAMPLE_TOKENS=40, SAVE_EVERY=-1)
    computed = Computed(monkeypatch)
    said: list[tuple[str, int, int]] = []
    resumed = run(plan, tmp_path / "cut", memory, lambda *words: said.append(words), SAMPLE_TOKENS=40, SAVE_EVERY=-1)
    assert_same(plan, resumed, whole)
    finished = max(0, (report - TEXT_REPORTS - 2) // 3)
    assert computed.calls == CALLS - finished
    assert ("calibrating on pictures", 3 * finished, 3 * CALLS) in said
    assert ("calibrating on pictures", 3 * finished - 1, 3 * CALLS) not in said


@pytest.mark.slow
@pytest.mark.parametrize("memory", [PLENTY, LITTLE])
def test_cut_again_and_again_it_ends_with_the_same_statistics(
    plan: QuantizationPlan, tmp_path: Path, memory: int
) -> None:
    """Attempt n is cut at its n-th report, with what was saved now and then only."""
    whole = run(plan, tmp_path / "whole", memory, SAMPLE_TOKENS=40)
    for attempt in range(2, 100):
        try:
            resumed = run(
                plan, tmp_path / "cut", memory, cut_at(attempt), SAMPLE_TOKENS=40, SAVE_EVERY=-1 if attempt % 2 else 99
            )
            break
        except KilledError:
            pass
    assert attempt > 4
    assert_same(plan, resumed, whole)


def test_a_finished_calibration_is_read_and_not_made_again(
    plan: QuantizationPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(plan, tmp_path)
    monkeypatch.setattr(module, "stream_pipeline", lambda *_: pytest.fail("the pipeline was loaded"))
    assert_same(plan, run(plan, tmp_path), first)


def test_nothing_is_lost_where_nothing_was_saved(plan: QuantizationPlan, found: Calibration, tmp_path: Path) -> None:
    """Cut before the first save of pictures: what was added in memory alone is added once."""
    with pytest.raises(KilledError):
        run(plan, tmp_path, progress=cut_at(ALL_REPORTS - 1), SAVE_EVERY=99)
    assert_same(plan, run(plan, tmp_path), found)


# ---------------------------------------------------------------- refusals


def test_activations_that_are_not_finite_are_named_and_never_stored(
    plan: QuantizationPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensor = Checkpoint.load_tensor

    def spoiled(checkpoint: Checkpoint, name: str) -> Tensor:
        value = tensor(checkpoint, name)
        return value * torch.inf if name == "layers.0.attention_norm1.weight" else value

    monkeypatch.setattr(Checkpoint, "tensor", spoiled)
    with pytest.raises(UserError, match=r"NaN or infinite activations at the input of transformer\.layers\.0\."):
        run(plan, tmp_path, SAVE_EVERY=-1)
    stored = Workspace(tmp_path, "key")
    assert not any(name.startswith("transformer.") for name in stored.tensor_names(stored.statistics_file))
