"""README.md of an artifact: the model card, with the front matter that the Hugging Face Hub reads."""

from __future__ import annotations

from ..common.markdown_table import render_table
from ..storage.artifact_schema import ArtifactDescription

CARD_BEGINNING = "---\nlibrary_name: edgepress"  # by which a card of an artifact is recognized
USAGE = """\
## Use

On the device, with Python and `pip install 'edgepress[runtime]'`, which needs no torch:

```sh
edgepress verify .
edgepress generate . --prompt "a red door" --output door.png
```
"""


def render_model_card(description: ArtifactDescription) -> str:
    """Renders the model card of an artifact. Every number in it is in artifact.json."""
    sections = [_render_front_matter(description), _render_title(description), _render_components(description)]
    sections += [_render_scores(description), USAGE]
    return "\n".join(filter(None, sections))


def describe_relation(source: str) -> dict[str, str]:
    """What front matter says of the original: nothing unless it is a repository on the Hub.

    Args:
        source: A repository on the Hub, such as `owner/name`, a folder, or nothing.
    """
    is_hub_id = source.count("/") == 1 and not source.startswith((".", "/", "~"))
    return {"base_model": source, "base_model_relation": "quantized"} if is_hub_id else {}


def _render_front_matter(description: ArtifactDescription) -> str:
    source = description.source
    lines = [CARD_BEGINNING, "pipeline_tag: text-to-image"]
    if source.license:
        lines.append(f"license: {source.license}")
    lines += [f"{key}: {value}" for key, value in describe_relation(source.model).items()]
    return "\n".join([*lines, f"tags: [edgepress, {description.device}]", "---", ""])


def _render_title(description: ArtifactDescription) -> str:
    source = description.source
    made_from = f", made from {source.model}" if source.model else ""
    revision = f" at revision {source.revision}" if source.revision else ""
    lines = [f"# {description.pipeline_class} for {description.device}", ""]
    lines.append(f"An artifact of edgepress {description.versions['edgepress']}{made_from}{revision}.")
    if description.quantization:
        method = description.quantization.settings.get("method", "")
        lines.append(f"Weights were quantized with the method `{method}`.")
    plan = description.memory_plan
    if plan:
        verdict = f"On the device it {plan.verdict}" if plan.verdict else "Memory"
        usable = "" if plan.usable_bytes is None else f", {plan.usable_bytes / 1e6:,.0f} MB can be used"
        lines.append(
            f"{verdict}, estimated: {plan.resident_bytes / 1e6:,.0f} MB with all graphs loaded, "
            f"{plan.phased_bytes / 1e6:,.0f} MB with one at a time{usable}."
        )
    return "\n".join([*lines, ""])


def _render_components(description: ArtifactDescription) -> str:
    rows = [
        [f"`{name}`", entry.precision or "–", f"{entry.bytes / 1e6:,.1f}", f"**{entry.status}**: {entry.reason}"]
        for name, entry in description.components.items()
    ]
    return render_table(("folder", "precision", "MB", "status"), rows, numbers={2}) + "\n"


def _render_scores(description: ArtifactDescription) -> str:
    lines = []
    if description.evaluation:
        evaluation = description.evaluation
        lines += [
            f"Evaluation over {evaluation.num_prompts} prompts: {evaluation.verdict or 'no gates'}.",
            *(
                f"- {name}: " + ", ".join(f"{score} {mean:.4g}" for score, mean in scores.items())
                for name, scores in evaluation.scores.items()
                if scores
            ),
        ]
    if description.benchmark:
        bench = description.benchmark
        lines.append(
            f"{bench.kind.capitalize()} on {bench.machine}: {bench.seconds_per_image:.3g} s an image, peak memory "
            f"{bench.peak_bytes / 1e6:,.0f} MB."
        )
    return "\n".join(["## Measured", "", *lines, ""]) if lines else ""
