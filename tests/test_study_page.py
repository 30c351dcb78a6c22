"""A study's page, its Markdown and its summary, of a study made up with numbers that are known."""

import json
from pathlib import Path

import pytest
from scipy import stats

from dasvit.cell.genotype import Genotype
from dasvit.cell.graph import live_edges
from dasvit.errors import UserError
from dasvit.study.verdicts import summarise, write_study
from studies import CONTROL, FOUND, LUCK, made_up
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


def test_baselines_count_and_nothing_else() -> None:
    """tau of multiply-adds and of ratios against scipy's, over all cells and among those of about the median's cost."""
    study = made_up(changed=False)
    macs = dict(zip([*(f"random{i}" for i in range(6)), "dasvit0", "dasvit1", "dasvit2"], range(9), strict=True))
    for key, place in macs.items():
        study["cells"][key]["macs"] = 4_000_000 + 100_000 * (place * 7 % 9)
    row = summarise(study)["ranking"][0]
    cells = [study["cells"][key] for key in study["searches"][0]["ranking"]["supernet_top1"]]
    top1, cost = [cell["top1"] for cell in cells], [cell["macs"] for cell in cells]
    assert row["macs"]["tau"] == pytest.approx(stats.kendalltau(cost, top1).statistic)
    genotypes = [Genotype.from_dict(cell["genotype"]) for cell in cells]
    built = [[genotype.edges[i].op for i in live_edges(genotype)] for genotype in genotypes]
    ratios = [sum(float(op.split("_")[1]) for op in ops if op.startswith("mlp")) for ops in built]
    assert len(set(ratios)) > 1 and row["ratios"]["tau"] == pytest.approx(stats.kendalltau(ratios, top1).statistic)
    near = [i for i, value in enumerate(cost) if abs(value / 4.4e6 - 1) <= 0.1]
    within = row["within"]
    assert within["macs_at"] == 4.4e6 and within["cells"] == len(near) == 9
    for key, place in macs.items():
        study["cells"][key]["macs"] = 4_000_000 + 200_000 * (place * 7 % 9)
    within = summarise(study)["ranking"][0]["within"]  # 4.8M ± 0.48M: 4.4M to 5.2M
    near = [i for i, key in enumerate(study["searches"][0]["ranking"]["supernet_top1"]) if 2 <= macs[key] * 7 % 9 <= 6]
    assert within["cells"] == len(near) == 5 and within["supernet"]["tau"] == pytest.approx(1)
    order = stats.kendalltau([macs[k] * 7 % 9 for k in macs if 2 <= macs[k] * 7 % 9 <= 6], [top1[i] for i in near])
    assert within["macs"]["tau"] == pytest.approx(order.statistic) and within["macs"]["low"] is None
    assert summarise(study)["taus"] == 2 * 2 * 6  # two rankings, over all and within, of six supernets


def test_verdicts_say_no_more_than_the_tests_do() -> None:
    summary = summarise(made_up())
    dasvit, darts = summary["verdicts"]
    # Student's and Welch's p by scipy, times the number of questions that are not answered yet (Holm).
    welch = stats.ttest_ind(FOUND["dasvit"], CONTROL, equal_var=False)
    against = summary["variants"][0]["over_control"]
    assert against["p"] == pytest.approx(welch.pvalue) and against["mean"] == pytest.approx(82 - sum(CONTROL) / 3)
    assert summary["questions"] == 8
    asked = [row[f"over_{n}"] for row in summary["variants"][:2] for n in ("control", "vit", "vit_shift", "published")]
    smaller = sum(one["p"] < against["p"] for one in asked)
    assert against["adjusted"] >= (8 - smaller) * against["p"] - 1e-12
    assert dasvit.startswith("dasvit: 82.00 ± 1.00 % over 3 searches. ")
    word = "Better than" if against["adjusted"] < 0.05 else "Not told apart from"
    assert f"{word} luck (best of 4 drawn evenly): +4.33 points (95 %: " in dasvit
    assert darts.startswith(
        "darts: 75.00 ± 5.00 % over 3 searches. Not told apart from luck (best of 4 drawn evenly): -"
    )
    assert "Not told apart from the ViT: -3.00 points (95 %: " in darts and "the ViT with shift: -5.00" in darts
    assert "random cells" not in dasvit + darts


def test_one_question_alone_is_not_corrected() -> None:
    study = made_up(changed=False) | {"vit": None, "vit_shift": None, "published": None}
    study["variants"] = [row for row in study["variants"] if row["key"] != "darts"]
    summary = summarise(study)
    against = summary["variants"][0]["over_control"]
    assert summary["questions"] == 1 and against["adjusted"] == against["p"] < 0.05
    assert "Better than luck" in summary["verdicts"][0]


def test_a_cell_found_twice_counts_once() -> None:
    study = made_up(changed=False)
    for search in study["searches"]:
        if search["variant"] == "dasvit" and search["seed"] == 2:
            search["cell"] = "dasvit1"
    row = summarise(study)["variants"][0]
    assert (row["n"], row["cells"], row["searches"], row["mean"]) == (2, 2, 3, 81.5)
    assert row["test"]["least"] == pytest.approx(1 / 28) and row["over_vit"]["pairs"] == 4
    assert "over 2 different cells of 3 searches." in summarise(study)["verdicts"][0]


def test_few_runs_are_told_that_they_are_few() -> None:
    study = made_up(changed=False)
    study["searches"] = [search for search in study["searches"] if search["seed"] == 0]
    (dasvit, _) = summarise(study)["verdicts"]
    assert (
        "over 1 search. +4.00 points against luck (best of 4 drawn evenly), with no spread to judge that by." in dasvit
    )
    study = made_up(changed=False)
    for cell in study["cells"].values():
        del cell["trainings"][1:]
    (dasvit, _) = summarise(study)["verdicts"]
    assert "+4.00 points against the ViT, with no spread to judge that by." in dasvit, "one training"


def test_what_a_search_spent_stands_beside() -> None:
    rows = {row["key"]: row for row in summarise(made_up())["variants"]}
    assert (rows["dasvit"]["images"], rows["control"]["images"]) == (3000, 1000)
    assert rows["dasvit"]["core_seconds"] == pytest.approx(127)


def test_an_older_study_can_still_be_read(tmp_path: Path) -> None:
    """Of the first format: no control, no compute, no ViT with shift."""
    study = made_up(changed=False)
    for key in ("control", "seeds", "vit_shift"):
        del study[key]
    del study["options"]["control"], study["cells"]["vit_shift"]
    study["variants"] = [row for row in study["variants"] if row["key"] != "control"]
    study["searches"] = [search for search in study["searches"] if search["variant"] != "control"]
    for search in study["searches"]:
        del search["images"], search["core_seconds"]
    content = write_study(tmp_path, study | {"format": "dasvit-study/1"})
    assert "Not held against luck: the study has no control." in content["summary"]["verdicts"][0]
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "There is no control: nothing is held against luck." in page.said and "against compute" not in page.said


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
    heads = ["", "top-1", "different cells", "sd of trainings", "multiply-adds", "images of a search"]
    results = page.table_of(*heads, "core-seconds of a search", "over the control, points", "corrected p")
    assert results[0][:7] == ["dasvit", "82.00 ± 1.00 %", "3", "1.41", "4.20M", "3.00k", "127"]
    assert results[2][:7] == ["best of 4 drawn evenly", "77.67 ± 0.76 %", "3", "1.41", "4.20M", "1.00k", "127"]
    names = ["6 random cells", "ViT (sd over trainings)", "ViT with shift (sd over trainings)"]
    assert [row[0] for row in results[3:6]] == names
    space = page.table_of("", "multiply-adds", "of the random cells'", "percentile", "RI, %", "p")
    assert space[0][:4] == ["dasvit", "4.20M", "1.00", "94"]
    assert "Against 6 random cells of dasvit's cost, 4.20M multiply-adds ± 5 %" in page.said
    assert "The control sends 4 evenly drawn cells through the same finals as dasvit's" in page.said
    assert "τ's of supernets and weights were looked at" in page.said and "Test top-1 against compute" in page.said
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
    assert len(runs) == 18 + 2 * (3 + 6 + 18)
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
    study["cells"] = {
        key: {**study["cells"][key], "trainings": [], "top1": None} for key in ("vit", "vit_shift", "published")
    }
    content = write_study(tmp_path, study)
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "Nothing was trained yet." in page.said and "So far 0 of 18 searches" in page.said
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
