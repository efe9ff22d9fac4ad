"""Results say what was compared, and not where the folders of this machine are."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.result_rows import make_identity, make_prompt, make_results, make_sample

from edgepress.evaluate.results.locations import name_location, relate_path
from edgepress.evaluate.results.results_file import load_results, save_results


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("artifacts/pi5/model", "artifacts/pi5/model"),
        ("./artifacts/../artifacts/pi5", "artifacts/pi5"),
        ("text-en", "text-en"),
        ("/home/me/models/big", "models/big"),
        ("/big", "big"),
        ("/home/me/hub/models--org--big/snapshots/0a1b2c", "org/big"),
        ("/home/me/snapshots/0a1b2c", "snapshots/0a1b2c"),
    ],
)
def test_names(path: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert name_location(path) == name


def test_a_path_in_the_current_folder_begins_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert name_location(tmp_path / "artifacts" / "pi5") == "artifacts/pi5"
    assert name_location("../client/model") == "client/model"


def test_images_are_found_after_all_moved_together(tmp_path: Path) -> None:
    project = tmp_path / "project"
    images, results_file = project / ".work" / "images", project / "evaluation" / "results.json"
    truth = project / "truth" / "a.png"
    ground_truth = relate_path(truth, images)
    sample = make_sample(make_prompt("a"), 30).model_copy(update={"ground_truth": ground_truth})
    results = make_results([sample], identity=make_identity(image_folder=str(images)))
    save_results(results, results_file)
    assert str(tmp_path) not in results_file.read_text()
    assert load_results(results_file) == results
    moved = project.rename(tmp_path / "moved")
    loaded = load_results(moved / "evaluation" / "results.json")
    folder = Path(loaded.identity.image_folder)
    assert folder == moved / ".work" / "images"
    assert (folder / ground_truth).resolve() == moved / "truth" / "a.png"
