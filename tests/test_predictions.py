"""What a training and an evaluation keep of every test image; and that all that is shown agrees with it."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, f1_score

import dasvit
from dasvit.models.folder import read_model_config
from dasvit.report.run.card import card_text
from dasvit.report.run.page import write_report
from dasvit.report.run.reading import read_run
from dasvit.report.words import percent
from helpers import call_cli
from test_api import OPTIONS

COUNTS = {"field": 20, "forest": 6, "town": 6}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, chance = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for split, scale in (("train", 3), ("test", 2)):
        for name, count in COUNTS.items():
            (root / split / name).mkdir(parents=True)
            for number in range(count * scale):
                pixels = chance.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{number:03}.png")
    return root


@pytest.fixture(scope="module")
def model(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> dasvit.TrainedModel:
    options = {**OPTIONS, "data.limit": 0, "data.eval_limit": 0, "model.image_size": 8, "model.patch_size": 4}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DASVIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        return dasvit.train("vit", photos, run=tmp_path_factory.mktemp("runs") / "run", options=options, quiet=True)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_predictions_are_what_the_figures_are_of(model: dasvit.TrainedModel, photos: Path) -> None:
    assert model.run
    rows, result = rows_of(model.run / "predictions.csv"), json.loads((model.run / "result.json").read_text())
    assert len(rows) == result["images"] == 64
    for row in rows:
        assert (photos / row["file"]).is_file() and Path(row["file"]).parent.name == row["class"]
        shares = {name: float(row[f"p({name})"]) for name in COUNTS}
        assert max(shares, key=shares.__getitem__) == row["prediction"]
        assert float(row["probability"]) == max(shares.values()) and sum(shares.values()) == pytest.approx(1)
    truth, named = [row["class"] for row in rows], [row["prediction"] for row in rows]
    assert result["balanced_accuracy"] == pytest.approx(100 * balanced_accuracy_score(truth, named))
    assert result["macro_f1"] == pytest.approx(100 * f1_score(truth, named, average="macro", zero_division=0))
    assert result["majority"] == pytest.approx(100 * 40 / 64) and "top5" not in result
    matrix = [[int(row[name]) for name in COUNTS] for row in rows_of(model.run / "confusion.csv")]
    assert matrix == result["confusion"] == confusion_matrix(truth, named, labels=list(COUNTS)).tolist()


def test_page_card_and_commands_show_the_same_figures(model: dasvit.TrainedModel) -> None:
    assert model.run
    result = json.loads((model.run / "result.json").read_text())
    status, said, _ = call_cli("evaluate", str(model.run))
    page = write_report(model.run).read_text(encoding="utf-8")
    card = card_text(read_model_config(model.folder), read_run(model.run), None)
    assert status == 0
    for key in ("majority", "balanced_accuracy", "macro_f1", "ece"):
        assert f"{result[key]:.2f} %" in said
        assert percent(result[key]) in page and percent(result[key]) in card
    assert result["remark"] and result["remark"] in said and result["remark"] in page and result["remark"] in card
    assert "top-5" not in said + page + card


def test_evaluation_of_the_same_images_keeps_the_same_predictions(model: dasvit.TrainedModel) -> None:
    assert model.run
    status, said, _ = call_cli("evaluate", str(model.run), "--json")
    kept = model.run / "evaluation"
    ours, theirs = rows_of(model.run / "predictions.csv"), rows_of(kept / "predictions.csv")
    assert status == 0 and [row["file"] for row in ours] == [row["file"] for row in theirs]
    assert json.loads((kept / "result.json").read_text()) == json.loads(said)
    frame = model.evaluate(quiet=True).to_frame()
    assert frame["prediction"].tolist() == [row["prediction"] for row in theirs]
    assert frame["p(field)"].tolist() == [float(row["p(field)"]) for row in theirs]


def test_the_surest_mistakes_are_shown(model: dasvit.TrainedModel) -> None:
    assert model.run
    wrong = [row for row in rows_of(model.run / "predictions.csv") if row["class"] != row["prediction"]]
    wrong.sort(key=lambda row: -float(row["probability"]))
    shown = json.loads((model.run / "mistakes.json").read_text())["images"]
    assert [image["file"] for image in shown] == [row["file"] for row in wrong[:12]]
    page = write_report(model.run).read_text(encoding="utf-8")
    assert page.count("<li><img src=") == 12 and wrong[0]["file"] in page
