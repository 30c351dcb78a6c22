"""`dasvit report` of every kind of folder that a command writes."""

import json
from pathlib import Path

import pytest

from dasvit.errors import UserError
from dasvit.report.folders import write_pages
from dasvit.study.verdicts import write_study
from helpers import SMALL, call_cli
from run_folders import write_search, write_train
from studies import made_up
from test_report_page import Page


def page_of(*folders: Path, out: Path | None = None) -> Page:
    return Page(write_pages(folders, out).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "table"
    status, _, err = call_cli("compare", "dasvit_shift", "vit", *SMALL, "--seeds=2", "--run", run)
    assert status == 0, err
    return run


@pytest.fixture(scope="module")
def candidate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a candidate that went on to the second rung."""
    run = tmp_path_factory.mktemp("runs") / "finals"
    options = [option for option in SMALL if "finals.cells" not in option]
    finals = ["--method=finals", '--search.finals={"cells":2,"rungs":[1,2]}', "--search.finals.shipped=false"]
    status, _, err = call_cli("search", *options, *finals, "--train.batch_size=10", "--run", run)
    assert status == 0, err
    return max((run / "finals").iterdir(), key=lambda folder: len((folder / "rungs.json").read_text()))


def test_a_comparison_is_its_table_and_its_trainings(compared: Path, tmp_path: Path) -> None:
    page = page_of(compared)
    assert (compared / "report.html").is_file()
    assert [a["id"] for a in page.all("section")] == ["networks", "results", "cells", "trainings", "differences"]
    rows = next(table[1:] for table in page.tables if table and table[0][:2] == ["network", "top-1"])
    kept = json.loads((compared / "compare.json").read_text())["networks"]
    assert [row[0] for row in rows] == ["dasvit_shift", "vit"]
    assert rows[1][1] == f"{kept[1]['top1']:.2f} ± {kept[1]['top1_sd']:.2f} %"
    names = ["dasvit_shift, seed0", "dasvit_shift, seed1", "vit, seed0", "vit, seed1"]
    assert page.table_of("", *names) == [["runtime.seed", "0", "1", "0", "1"]]
    beside = page_of(compared, write_train(tmp_path / "other"), out=tmp_path / "page.html")
    assert len(beside.all("section")) and "other" in beside.said


def test_a_comparison_of_costs_is_its_table(tmp_path: Path) -> None:
    status, _, err = call_cli("compare", "vit", *SMALL, "--cost-only", "--ptflops=no", "--run", tmp_path / "costs")
    assert status == 0, err
    page = page_of(tmp_path / "costs")
    assert [a["id"] for a in page.all("section")] == ["networks"]
    assert [row[0] for row in page.table_of("network", "parameters", "multiply-adds", "design")] == ["vit"]


def test_a_candidate_is_judged_on_validation_images(candidate: Path) -> None:
    page = page_of(candidate)
    rungs = json.loads((candidate / "rungs.json").read_text())["rungs"]
    assert len(rungs) == 2
    assert "training of a candidate" in page.said and "trained for 2 of 2 epochs" in page.said
    assert "val top-1 after 1 epoch" in page.said and f"val loss {rungs[1]['loss']:.4f}" in page.said
    assert "test" not in page.said.replace("test_", "").split("Configuration")[0]


def test_what_lies_in_a_run_stands_for_it(candidate: Path, tmp_path: Path) -> None:
    search = candidate.parent.parent
    (search / "report.html").unlink()
    page_of(candidate.parent)
    assert (search / "report.html").is_file()
    model = write_train(tmp_path / "run") / "model"
    model.mkdir(exist_ok=True)
    page_of(model)
    assert (tmp_path / "run" / "report.html").is_file()


def test_a_study_keeps_its_page(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    folder.mkdir()
    (folder / "environment.json").write_text('{"kind": "study", "subject": "study"}')
    with pytest.raises(UserError, match=r"holds no study\.json yet"):
        write_pages([folder])
    write_study(folder, made_up())
    before = (folder / "report.html").read_bytes()
    (folder / "report.html").unlink()
    write_pages([folder])
    assert (folder / "report.html").read_bytes() == before
    with pytest.raises(UserError, match="is a study, which has a page of its own"):
        write_pages([folder, write_search(tmp_path / "search")])


def test_a_folder_of_runs_names_them(tmp_path: Path) -> None:
    write_search(tmp_path / "one")
    write_train(tmp_path / "two")
    with pytest.raises(UserError, match="It holds the runs one, two: give one or several of these"):
        write_pages([tmp_path])


@pytest.mark.parametrize("table", ["{", '{"networks": [{"name": "vit"}]}', '{"networks": 3}', "{}"])
def test_a_damaged_table_is_said(table: str, tmp_path: Path) -> None:
    (tmp_path / "environment.json").write_text('{"kind": "compare", "subject": "training"}')
    (tmp_path / "compare.json").write_text(table)
    with pytest.raises(UserError, match=r"holds no compare\.json yet|is damaged"):
        write_pages([tmp_path])
