"""A study's page, its Markdown and its summary, of a study made up with numbers that are known."""

import json
from pathlib import Path

import pytest
from scipy import stats

from dasvit.errors import UserError
from dasvit.study.verdicts import summarise, write_study
from studies import FOUND, LUCK, made_up
from test_report_page import Page


def test_the_summary_is_that_of_the_numbers() -> None:
    summary = summarise(made_up())
    dasvit, darts, *_ = summary["variants"]
    assert (dasvit["mean"], dasvit["sd"], dasvit["n"]) == (82.0, 1.0, 3)
    assert dasvit["percentile"] == pytest.approx(100 * (5 + 6 + 6) / 18)
    mean = sum(LUCK) / 6
    assert dasvit["improvement"]["ri"] == pytest.approx(100 * (82 - mean) / mean)
    # Only the sets {81, 82, 83} and {81.5, 82, 83} of the nine values have so large a mean.
    assert dasvit["test"] == {"p": pytest.approx(2 / 84), "least": pytest.approx(1 / 84)}
    assert dasvit["training_sd"] == pytest.approx(2**0.5)
    assert dasvit["over_vit"]["mean"] == pytest.approx(4) and dasvit["over_vit"]["wins"] == 6
    assert (dasvit["collapse"]["count"], darts["collapse"]["count"]) == (0, 3)
    assert darts["reasons"] == {"no attention": 3, "skips": 3}
    assert dasvit["gap"]["mean"] == pytest.approx((64 - 58) - 1)
    assert summary["vit"]["mean"] == 78 and summary["published"]["mean"] == 79


def test_rankings_agree_as_they_were_made_to() -> None:
    rows = summarise(made_up(changed=False))["ranking"]
    taus = {row["run"]: row["supernet"]["tau"] for row in rows}
    assert taus["searches/dasvit/seed1"] == pytest.approx(1) and taus["searches/darts/seed1"] == pytest.approx(-1)
    assert rows[0]["supernet"]["precision"] == 1 and rows[0]["chance"] == pytest.approx(5 / 9)
    assert rows[0]["weights"]["tau"] == pytest.approx(1) and rows[0]["cells"] == 9


def test_verdicts_say_no_more_than_the_tests_do() -> None:
    dasvit, darts = summarise(made_up())["verdicts"]
    assert dasvit.startswith("dasvit: 82.00 ± 1.00 % over 3 searches. Better than random cells (78.58 %")
    assert (
        "Better than the ViT: +4.00 points" not in dasvit or summarise(made_up())["variants"][0]["over_vit"]["low"] > 0
    )
    assert darts.startswith("darts: 75.00 ± 5.00 % over 3 searches. Not shown to be better than random cells")
    assert "Not told apart from the ViT: -3.00 points (95 %: " in darts


def test_few_runs_are_told_that_they_are_few() -> None:
    study = made_up(changed=False)
    study["searches"] = [search for search in study["searches"] if search["seed"] == 0]
    (dasvit, _) = summarise(study)["verdicts"]
    assert "so few runs cannot give less than 0.14" in dasvit and "over 1 search." in dasvit


def test_page(tmp_path: Path) -> None:
    content = write_study(tmp_path, made_up())
    assert json.loads((tmp_path / "study.json").read_text()) == content
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    sections = ["results", "runs", "luck", "ranking", "collapse", "ablation", "protocol"]
    assert [a["id"] for a in page.all("section")] == sections
    for link in page.all("a"):
        assert link["href"].startswith(("#", "searches/", "trainings/"))
        if link["href"].startswith("#"):
            assert link["href"][1:] in page.ids
    results = page.table_of("", "top-1", "sd of trainings", "multiply-adds", "percentile", "RI, %", "p")
    assert results[0][:5] == ["dasvit", "82.00 ± 1.00 %", "1.41", "4.20M", "94"]
    assert [row[0] for row in results[2:4]] == ["6 random cells", "ViT (sd over trainings)"]
    collapse = page.table_of(
        "method", "searches", "collapsed", "rate, %", "no attention", "skips", "gap at the end, points"
    )
    low, high = stats.binomtest(3, 3).proportion_ci(method="wilson")
    assert collapse[1][:4] == ["darts", "3", "3", f"100 ({100 * low:.0f} to {100 * high:.0f})"]
    heads = ["variant", "top-1", "multiply-adds", "different cells", "percentile", "RI, %", "p"]
    ablation = page.table_of(*heads, "collapsed", "a search", "memory")
    assert [row[-3:] for row in ablation] == [["0 of 3", "63.5 s", "702 MiB"], ["0 of 3", "63.5 s", "–"]]
    assert "made <up>" in page.said
    assert "Every dot of a cell is the mean of its 2 trainings" in page.said


def test_dots_of_an_unfinished_study_are_what_is_there(tmp_path: Path) -> None:
    study = made_up(changed=False)
    del study["cells"]["dasvit0"]["trainings"][1:]
    write_study(tmp_path, study)
    assert "is the mean of its 1 or 2 trainings" in Page((tmp_path / "report.html").read_text(encoding="utf-8")).said


def test_every_run_has_a_link(tmp_path: Path) -> None:
    study = made_up()
    write_study(tmp_path, study)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    markdown = (tmp_path / "study.md").read_text(encoding="utf-8")
    runs = [search["run"] for search in study["searches"]]
    runs += [training["run"] for cell in study["cells"].values() for training in cell["trainings"]]
    assert len(runs) == 15 + 2 * (2 + 6 + 15)
    for run in runs:
        assert f'href="{run}/report.html"' in text and f"]({run})" in markdown


def test_monitored_curves_are_those_of_the_searches(tmp_path: Path) -> None:
    write_study(tmp_path, made_up(changed=False))
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    heads = [f"{name}, seed {seed}" for name in FOUND for seed in range(3)]
    tables = [t for t in page.tables if t[0] == ["epoch", *heads]]
    assert len(tables) == 6  # identity, zero, entropy, mixture, derived, gap
    assert [row[4] for row in tables[0][1:]] == ["0.1", "0.3", "0.5", "0.7", "0.9"]
    assert [row[1] for row in tables[-1][1:]] == ["10", "9", "8", "7", "6"]


def test_a_study_that_has_only_begun(tmp_path: Path) -> None:
    study = made_up()
    study |= {"searches": [], "random": {"cells": [], "macs": None, "tolerance": None}}
    study["cells"] = {key: {**study["cells"][key], "trainings": [], "top1": None} for key in ("vit", "published")}
    content = write_study(tmp_path, study)
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "Nothing was trained yet." in page.said and "So far 0 of 15 searches" in page.said
    assert content["summary"]["verdicts"] == []


def test_searched_and_not_yet_trained(tmp_path: Path) -> None:
    study = made_up()
    study["cells"] = {key: {**cell, "trainings": [], "top1": None} for key, cell in study["cells"].items()}
    content = write_study(tmp_path, study)
    assert content["summary"]["verdicts"] == [] and content["summary"]["variants"][1]["collapse"]["count"] == 3


def test_another_page_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("mine")
    with pytest.raises(UserError, match="left alone"):
        write_study(tmp_path, made_up())
    assert (tmp_path / "report.html").read_text() == "mine"
