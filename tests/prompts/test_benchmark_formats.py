"""Entries as published benchmarks have them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edgepress.prompts.prompt import Prompt
from edgepress.prompts.sets import load_prompt_set


def write_entries(file: Path, *entries: dict[str, Any]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(json.dumps(entry, ensure_ascii=False) for entry in entries), "utf-8")
    return file


def test_parti_prompts(tmp_path: Path) -> None:
    file = tmp_path / "PartiPrompts.tsv"
    rows = (
        "Prompt\tCategory\tChallenge\tNote",
        "a grey goose\tAnimals\tBasic\t",
        'a sign that says "SLOW" \tArtifacts\tWriting & Symbols\twith "quotes"',
        "a grey goose\tAnimals\tBasic\tthe same again",
    )
    file.write_text("\n".join(rows) + "\n", "utf-8")
    prompts = load_prompt_set(file)
    assert [prompt.id for prompt in prompts] == ["parti-0000", "parti-0001", "parti-0002"]
    assert prompts[1] == Prompt(
        id="parti-0001",
        prompt='a sign that says "SLOW"',
        language="en",
        categories={"category": "Artifacts", "challenge": "Writing & Symbols"},
    )


def test_geneval(tmp_path: Path) -> None:
    file = write_entries(
        tmp_path / "evaluation_metadata.jsonl",
        {"tag": "single_object", "include": [{"class": "kite", "count": 1}], "prompt": "a photo of a kite"},
        {"tag": "position", "include": [], "prompt": "a photo of a kite above a cup"},
    )
    assert load_prompt_set(file)[1] == Prompt(
        id="geneval-00001", prompt="a photo of a kite above a cup", language="en", categories={"tag": "position"}
    )


def test_longtext_bench_in_both_languages(tmp_path: Path) -> None:
    shared = {"category": "sign", "length": "short", "text_length": 3}
    english = write_entries(
        tmp_path / "text_prompts.jsonl", {"prompt_id": 7, "prompt": "A gate", "text": ["TO LET", "ASK"], **shared}
    )
    chinese = write_entries(
        tmp_path / "text_prompts_zh.jsonl", {"prompt_id": 7, "prompt": "一扇门", "text": ["出租"], **shared}
    )
    categories = {"category": "sign", "length": "short"}
    assert load_prompt_set(english) == [
        Prompt(id="text_prompts-7", prompt="A gate", language="en", lines=("TO LET", "ASK"), categories=categories)
    ]
    assert load_prompt_set(chinese) == [
        Prompt(id="text_prompts_zh-7", prompt="一扇门", language="zh", lines=("出租",), categories=categories)
    ]


def test_cvtg_2k(tmp_path: Path) -> None:
    entry = {"index": 4, "prompt": "A mug that says 'HOT'", "carrier_list": ["mug"], "sentence_list": ["HOT", "TEA"]}
    file = write_entries(tmp_path / "CVTG" / "2.json", {"data_list": [entry]})
    assert load_prompt_set(file) == [
        Prompt(id="cvtg-2-4", prompt=entry["prompt"], language="en", lines=("HOT", "TEA"), categories={"regions": "2"})
    ]


def test_dpg_bench(tmp_path: Path) -> None:
    for name in ("partiprompts2", "12"):
        (tmp_path / f"{name}.txt").write_text(f"A long description, number {name}.\n", "utf-8")
    prompts = load_prompt_set(tmp_path)
    assert [(prompt.id, prompt.prompt) for prompt in prompts] == [
        ("dpg-12", "A long description, number 12."),
        ("dpg-partiprompts2", "A long description, number partiprompts2."),
    ]


def test_dpg_bench_as_one_file_has_one_row_per_question(tmp_path: Path) -> None:
    rows = (
        "item_id,text,keywords,proposition_id,dependency,category_broad,category_detailed,tuple,question_natural_language",
        '12,"A cat, a ""KING"" of cats.",,1,0,entity,whole,cat,Is there a cat?',
        '12,"A cat, a ""KING"" of cats.",,2,1,attribute,color,red,Is it red?',
        "partiprompts2,A long description.,,1,0,entity,whole,fox,Is there a fox?",
    )
    (tmp_path / "dpg_bench.csv").write_text("\n".join(rows) + "\n", "utf-8")
    prompts = load_prompt_set(tmp_path / "dpg_bench.csv")
    assert [(prompt.id, prompt.prompt) for prompt in prompts] == [
        ("dpg-12", 'A cat, a "KING" of cats.'),
        ("dpg-partiprompts2", "A long description."),
    ]
