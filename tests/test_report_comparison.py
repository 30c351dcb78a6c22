"""Several runs side by side, figures for papers, and the command."""

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import yaml

from dasvit.cli import main
from dasvit.report.compare.page import write_comparison
from dasvit.report.markup import latex
from dasvit.report.run.figures import accuracies, skip_weights, write_figures
from dasvit.report.run.reading import read_run
from run_folders import write_search, write_train
from test_report_page import Page


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    found = [
        write_search(tmp_path / "one", train=True),
        write_search(tmp_path / "two", epochs=(5,)),
        write_train(tmp_path / "vit"),
    ]
    config = yaml.safe_load((found[1] / "config.yaml").read_text())
    config["search"]["tokens"]["ratio"] = 0.25
    (found[1] / "config.yaml").write_text(yaml.safe_dump(config))
    return found


def test_runs_side_by_side(runs: list[Path], tmp_path: Path) -> None:
    page = Page(write_comparison(runs, tmp_path / "out" / "page.html").read_text(encoding="utf-8"))
    assert [a["id"] for a in page.all("section")] == ["results", "cells", "searches", "trainings", "differences"]
    heads = [
        "run",
        "parameters",
        "multiply-adds",
        "top-1 (95 %)",
        "majority",
        "top-5",
        "balanced",
        "macro-F1",
        "ECE",
        "search took",
        "training took",
        "peak memory",
    ]
    results = page.table_of(*heads)
    assert [row[0] for row in results] == ["one", "two", "vit"]
    shares = ["56.23 % (55.3 to 57.2)", "10 %", "95.25 %", "90.91 %", "90.91 %", "–"]  # ECE: not of an older run
    assert results[0][1:10] == ["1.41M", "102.83M", *shares, "5 min"]
    assert results[1][3] == "–" and results[2][9] == "–"
    differences = dict((row[0], row[1:]) for row in page.table_of("", "one", "two", "vit"))
    assert differences["search.tokens.ratio"] == ["0.5", "0.25", "–"]
    assert differences["train.epochs"] == ["4", "50", "4"]  # of the training inside, where there is one
    assert "model.width" not in differences
    assert "Machine, versions and data are the same." in page.said


def test_only_fields_that_both_have_can_differ(tmp_path: Path) -> None:
    """Neither a search beside a training nor a run of an older version fills the table."""
    folders = [write_search(tmp_path / "search"), write_train(tmp_path / "train")]
    config = yaml.safe_load((folders[1] / "config.yaml").read_text())
    del config["data"]["on_error"]
    config["train"]["epochs"] = 7
    (folders[1] / "config.yaml").write_text(yaml.safe_dump(config))
    page = Page(write_comparison(folders, tmp_path / "page.html").read_text(encoding="utf-8"))
    assert page.table_of("", "search", "train") == [["train.epochs", "50", "7"]]


def test_the_figure_of_accuracies_ends_at_a_hundred(tmp_path: Path) -> None:
    folder = write_train(tmp_path / "train")
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    lines = [json.dumps({**row, "test_top1": 100.0 - place}) + "\n" for place, row in enumerate(rows)]
    (folder / "metrics.jsonl").write_text("".join(lines))
    figure = accuracies([read_run(folder)], ["train"])
    assert figure is not None and figure.axes[0].get_ylim()[1] == 100


def test_curves_of_all_runs_stand_in_one_chart(runs: list[Path], tmp_path: Path) -> None:
    page = Page(write_comparison(runs, tmp_path / "page.html").read_text(encoding="utf-8"))
    identity = page.table_of("epoch", "one", "two")
    lines = [[json.loads(line) for line in (run / "architecture.jsonl").read_text().splitlines()] for run in runs[:2]]
    for i, row in enumerate(identity):
        assert [float(text) for text in row[1:]] == [round(x[i]["mean_weights"]["identity"], 3) for x in lines]
    top1 = page.table_of("epoch", "one", "vit")
    assert [row[1] for row in top1] == ["41 %", "42 %", "43 %", "44 %"]


def test_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    folders = [write_search(tmp_path / name / "run") for name in "ab"]
    page = Page(write_comparison(folders, tmp_path / "page.html").read_text(encoding="utf-8"))
    assert str(folders[0]) in page.said and str(folders[1]) in page.said


def test_figures(runs: list[Path], tmp_path: Path) -> None:
    files = write_figures(runs, tmp_path / "figures")
    stems = {path.stem for path in files if path.suffix == ".pdf"}
    assert stems == {"skip_weights", "accuracy", "weights_one", "weights_two", "cell_one", "cell_two", "cell_vit"}
    for path in files:
        if path.suffix == ".pdf":
            assert path.read_bytes().startswith(b"%PDF")
        elif path.suffix == ".svg":
            assert ET.parse(path).getroot().tag.endswith("svg")
    table = (tmp_path / "figures" / "networks.tex").read_text()
    assert r"one & 56.2 & 10.0 & 95.2 & 90.9 & 90.9 & 1.41M & 102.83M \\" in table
    assert r"two & -- & -- & -- & -- & -- & 1.41M & 102.83M \\" in table
    assert latex("a_b & 50% ± 1–2") == r"a\_b \& 50\% $\pm$ 1--2"
    assert latex("\\~") == r"\textbackslash{}\textasciitilde{}"


def test_skip_weights_are_those_of_the_files(runs: list[Path]) -> None:
    figure = skip_weights([read_run(run) for run in runs[:2]], ["one", "two"])
    assert figure is not None
    drawn: dict[str, dict[float, float]] = {}
    for line in figure.axes[0].lines:
        drawn.setdefault(str(line.get_color()), {}).update(line.get_xydata().tolist())  # type: ignore[union-attr]
    for run, found in zip(runs[:2], drawn.values(), strict=True):
        rows = [json.loads(line) for line in (run / "architecture.jsonl").read_text().splitlines()]
        assert found == {i: row["mean_weights"]["identity"] for i, row in enumerate(rows, start=1)}
    assert len(figure.axes[0].lines) == 3  # the first run's two stages, the second's one


def call(capsys: pytest.CaptureFixture[str], *arguments: object, status: int = 0) -> str:
    with pytest.raises(SystemExit) as end:
        main(["report", *map(str, arguments)])
    out, err = capsys.readouterr()
    assert end.value.code == status, err
    return out if status == 0 else err


def test_the_command(
    runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(capsys, runs[0]).startswith(f"{runs[0]}/report.html: open it")
    answer = json.loads(call(capsys, runs[2], "--out", tmp_path / "talk" / "p.html", "--figures", "--json"))
    assert answer["report"] == f"{tmp_path}/talk/p.html" and len(answer["figures"]) == 5
    assert all(Path(path).parent == tmp_path / "talk" / "figures" for path in answer["figures"])
    assert call(capsys, *runs).startswith("comparison.html: ")
    assert "one · two · vit" in (tmp_path / "comparison.html").read_text()


def test_mistakes(runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "there is no run folder" in call(capsys, tmp_path / "none", status=2)
    assert "is no run folder" in call(capsys, tmp_path, status=2)
    assert "is a folder" in call(capsys, runs[0], "--out", tmp_path, status=2)
    (tmp_path / "notes.html").write_text("mine")
    assert "left alone" in call(capsys, *runs, "--out", tmp_path / "notes.html", status=2)
    assert (tmp_path / "notes.html").read_text() == "mine"
