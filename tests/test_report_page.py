"""The page of a run: what stands on it, and what no folder may do to it."""

import json
import random
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from dasvit.cell.cost import vit_cost
from dasvit.config import ModelConfig
from dasvit.errors import UserError
from dasvit.report import refresh_report, write_report
from dasvit.report.run.page import PAGE
from dasvit.report.run.reading import read_run
from dasvit.report.words import weight
from run_folders import CLASSES, OPERATIONS, write_json, write_search, write_train

VOID = {"meta", "link", "input", "br", "img"}
NAMESPACE = "http://www.w3.org/2000/svg"
"""The name of SVG, which the script needs; nothing is fetched from there."""


class Page(HTMLParser):
    """A page's elements, text and tables; refuses what is not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.scripts: list[str] = []
        self.tables: list[list[list[str]]] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open, self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag in VOID:
            return
        self._open.append(tag)
        if tag == "script":
            self.scripts.append("")
        elif tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, (tag, self.getpos())

    def handle_data(self, data: str) -> None:
        if "script" in self._open:
            self.scripts[-1] += data
        elif "style" not in self._open:
            self.words.append(data)
            if "td" in self._open or "th" in self._open:
                self.tables[-1][-1][-1] += data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def ids(self) -> list[str]:
        return [attributes["id"] for _, attributes in self.elements if "id" in attributes]

    @property
    def said(self) -> str:
        return " ".join(" ".join(self.words).split())

    def table_of(self, *heads: str) -> list[list[str]]:
        """Return the rows of the first table with those heads."""
        return next(table[1:] for table in self.tables if table and table[0] == list(heads))


def page_of(folder: Path, **options: Any) -> Page:
    return Page(write_report(folder, **options).read_text(encoding="utf-8"))


def test_a_searchs_page_has_its_sections(tmp_path: Path) -> None:
    page = page_of(write_search(tmp_path / "run", train=True))
    sections = [attributes["id"] for attributes in page.all("section")]
    assert sections == ["cell", "weights", "collapse", "tokens", "learning", "cost", "resources", "configuration"]
    assert [a["href"] for a in page.all("a")] == ["#main", *(f"#{name}" for name in sections)]
    assert "Ended after 5 epochs." in page.said and "trained: test top-1" in page.said
    assert "It was <too> plain." in page.said


def test_a_trainings_page_has_its_sections(tmp_path: Path) -> None:
    page = page_of(write_train(tmp_path / "run"))
    sections = [attributes["id"] for attributes in page.all("section")]
    assert sections == ["cell", "learning", "classes", "confusions", "cost", "resources", "configuration"]
    assert "56.23 % 95 %: 55.3 to 57.2; majority 10 %" in page.said


def test_losses_are_called_what_they_are(tmp_path: Path) -> None:
    folder = write_train(tmp_path / "run")
    config = yaml.safe_load((folder / "config.yaml").read_text())
    for smoothing, flip, name in ((0.1, 0.5, "training (augmented, smoothed)"), (0.0, 0.0, "training")):
        config["train"] |= {"smoothing": smoothing, "augment": {"flip": flip}}
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        page = Page(write_report(folder).read_text(encoding="utf-8"))
        assert page.table_of("epoch", name, "test")
        assert ("no measure of the same thing" in page.said) == (name != "training")


def test_pages_can_be_read_by_those_who_do_not_see_them(tmp_path: Path) -> None:
    page = page_of(write_search(tmp_path / "run"))
    assert len(page.all("h1")) == len(page.all("main")) == len(page.all("header")) == len(page.all("footer")) == 1
    assert page.all("html")[0]["lang"] == "en" and page.all("nav")[0]["aria-label"]
    assert len(page.ids) == len(set(page.ids))
    for attributes in page.all("svg"):
        assert attributes.get("aria-hidden") == "true" or (attributes["role"] == "img" and attributes["aria-label"])
    for attributes in page.all("section"):
        assert attributes["aria-labelledby"] in page.ids
    for attributes in page.all("div"):
        if "tabindex" in attributes:
            assert attributes["role"] == "region" and attributes["aria-label"]
    charts = [attributes for attributes in page.all("figure") if attributes.get("class") == "chart"]
    assert len(charts) == 6 + 5 + 3 + 3 and len(page.all("figcaption")) == len(page.all("figure"))
    assert len(page.all("details")) >= len(charts)  # a table behind each


def test_numbers_are_those_of_the_files(tmp_path: Path) -> None:
    folder = write_search(tmp_path / "run")
    page = page_of(folder)
    lines = [json.loads(line) for line in (folder / "architecture.jsonl").read_text().splitlines()]
    tables = [table[1:] for table in page.tables if table and table[0] == ["epoch", *OPERATIONS]]
    assert len(tables) == 6  # the mean, and five edges
    for table, edge in zip(tables[1:], lines[0]["weights"], strict=True):
        expected = [
            [
                str(i + 1),
                *(weight(line["weights"][edge][op]) if op in line["weights"][edge] else "" for op in OPERATIONS),
            ]
            for i, line in enumerate(lines)
        ]
        assert table == expected
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    losses = page.table_of("epoch", "training (augmented)", "validation")
    assert [row[1] for row in losses] == [f"{row['train_loss']:.4g}" for row in metrics]
    assert [row[2] for row in losses] == [f"{row['val_loss']:.4g}" if "val_loss" in row else "" for row in metrics]
    reference = vit_cost(ModelConfig(image_size=32, patch_size=4, width=128, layers=6), 10)
    cost = page.table_of("", "this network", "ViT", "ratio")
    assert cost[0] == ["parameters", "1,408,650", f"{reference.params:,}", "1.17 ×"]
    assert cost[1] == ["multiply-adds", "102,830,336", f"{reference.macs:,}", "1.23 ×"]
    choices = page.table_of("edge", "operation", "weight", "strongest", "weight")
    last = lines[-1]["weights"]["prev2→x1"]
    best = max(last, key=lambda op: last[op])
    assert choices[0] == ["prev2→x1", "mlp_1", weight(last["mlp_1"]), best, weight(last[best])]
    frames = json.loads(next(script for script in page.scripts if '"frames"' in script))
    assert [frame["epoch"] for frame in frames["frames"]] == [1, 2, 3, 4, 5]
    shown = dict(zip(frames["operations"], frames["frames"][-1]["weights"][0], strict=True))
    assert {op: w for op, w in shown.items() if w} == {op: round(w, 3) for op, w in last.items()}


def test_prunings_and_stages_are_drawn(tmp_path: Path) -> None:
    page = page_of(write_search(tmp_path / "run"))
    labels = [attributes["aria-label"] for attributes in page.all("svg") if attributes.get("class") == "plot"]
    edge = next(label for label in labels if label.startswith("prev2→x1."))
    assert edge.count("pruned after epoch 3") == 5
    assert sum(attributes.get("class") == "pruned" for attributes in page.all("path")) == 5 * 6
    assert sum(attributes.get("class") == "border" for attributes in page.all("path")) == 6 + 5 + 3 + 3
    assert sum(attributes.get("class") == "alone" for attributes in page.all("rect")) == 2 * (6 + 5 + 3 + 3)


def test_a_collapse_is_called_one(tmp_path: Path) -> None:
    folder = write_search(tmp_path / "run")
    assert "No sign of a collapse" not in page_of(folder).said  # stage 2 of these has no attention
    lines = [json.loads(line) for line in (folder / "architecture.jsonl").read_text().splitlines()]
    for line in lines:
        line["weights"] = {edge: {"identity": 0.2, "msa_2": 0.8} for edge in line["weights"]}
    (folder / "architecture.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert "No sign of a collapse" in page_of(folder).said
    for line in lines:
        line["weights"] = {edge: {"identity": 0.8, "msa_2": 0.2} for edge in line["weights"]}
    (folder / "architecture.jsonl").write_text("\n".join(map(json.dumps, lines)))
    said = page_of(folder).said
    assert "identity is the strongest operation of 5 of 5 edges" in said and "without attention" in said


def test_nothing_is_loaded_from_elsewhere(tmp_path: Path) -> None:
    for folder in (write_search(tmp_path / "a", train=True), write_train(tmp_path / "b")):
        page = page_of(folder)
        assert set(re.findall(r"https?://[^\s\"'<]*", page.text)) == {NAMESPACE}
        assert not [a for _, a in page.elements if "src" in a or "srcset" in a]
        assert [a["href"] for a in page.all("link")] == ["data:,"]
        assert all(a["href"].startswith("#") for a in page.all("a"))
        assert "@import" not in page.text and "url(" not in page.text


def test_long_and_wide_runs_stay_under_two_megabytes(tmp_path: Path) -> None:
    for nodes, epochs in ((2, (400, 300, 300)), (8, (60, 60))):
        path = write_report(write_search(tmp_path / f"{nodes}", epochs=epochs, nodes=nodes, ended=False))
        assert 200_000 < path.stat().st_size < 2_000_000
        assert "Some epochs are left out here" in Page(path.read_text(encoding="utf-8")).said
    path = write_report(write_train(tmp_path / "train", epochs=2000, classes=[f"{i}" for i in range(200)]))
    assert path.stat().st_size < 2_000_000


NASTY = ['<script>alert("x")</script>', "a & b", "\"quoted\" 'twice'", "</script><b>", "{{ 7 * 7 }}", "naïve ✓"]


def test_names_are_written_not_run(tmp_path: Path) -> None:
    names = [*NASTY, *CLASSES[len(NASTY) :]]
    folder = write_train(tmp_path / "r<i>\"&'un", classes=names)
    plain = len(page_of(write_train(tmp_path / "plain")).all("script"))
    page = page_of(folder)
    assert len(page.all("script")) == plain and not page.all("i") and not page.all("b")
    assert folder.name in page.said
    heads = next(table[0] for table in page.tables if len(table[0]) == 11)
    assert heads[1:] == names


def test_names_of_operations_and_edges_are_written_not_run(tmp_path: Path) -> None:
    folder = write_search(tmp_path / "run")
    lines = [json.loads(line) for line in (folder / "architecture.jsonl").read_text().splitlines()]
    for line in lines:
        for name in NASTY:
            line["weights"]["prev2→x1"][name] = 0.5
            line["weights"][name] = {"identity": 1.0}
    (folder / "architecture.jsonl").write_text("\n".join(map(json.dumps, lines)))
    page = page_of(folder)
    assert not page.all("b") and all(name in page.said for name in NASTY[:2])
    lines = [{**line, "weights": {k: v for k, v in line["weights"].items() if k not in NASTY}} for line in lines]
    (folder / "architecture.jsonl").write_text("\n".join(map(json.dumps, lines)))
    page = page_of(folder)
    frames = json.loads(next(script for script in page.scripts if '"frames"' in script))
    assert set(NASTY) <= set(frames["operations"]) and not page.all("b")


FILES = ("config.yaml", "environment.json", "metrics.jsonl", "architecture.jsonl", "genotype.json", "derivation.json")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "binary", "folder", "list"])
def test_a_damaged_file_leaves_its_section_out(tmp_path: Path, name: str, damage: str) -> None:
    folder = write_search(tmp_path / "run", train=True)
    path = folder / name
    content = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage != "missing":
        path.write_bytes(
            {"empty": b"", "cut": content[: len(content) // 2], "binary": b"\xff\x00{", "list": b"[1]"}[damage]
        )
    page = page_of(folder)
    assert page.all("main")
    if damage in ("cut", "binary", "list") and not (damage == "cut" and name.endswith(("jsonl", "yaml"))):
        assert f"of {name}" in page.said


def test_a_half_written_line_is_left_out(tmp_path: Path) -> None:
    folder = write_search(tmp_path / "run", ended=False)
    for name in ("metrics.jsonl", "architecture.jsonl"):
        path = folder / name
        path.write_bytes(path.read_bytes()[:-40])
    page = page_of(folder)
    assert "1 line of metrics.jsonl" in page.said and "1 line of architecture.jsonl" in page.said
    assert [row[0] for row in page.table_of("epoch", "training (augmented)", "validation")] == ["1", "2", "3", "4"]


ODD: list[Any] = [
    None,
    True,
    -1,
    0,
    1e308,
    float("nan"),
    float("inf"),
    10**400,
    "",
    "x",
    "é<&",
    [],
    [[]],
    {},
    {"a": {"b": []}},
]


def spoil(value: Any, draw: random.Random, share: float) -> Any:
    """Return a value with some of what is in it replaced, dropped or turned into something odd."""
    if draw.random() < share:
        return draw.choice(ODD)
    if isinstance(value, dict):
        kept = {key: item for key, item in value.items() if draw.random() > share}
        return {
            (draw.choice(["", "<b>", key]) if draw.random() < share else key): spoil(v, draw, share)
            for key, v in kept.items()
        }
    return [spoil(item, draw, share) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("seed", range(20))
def test_no_content_stops_the_page(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    search, train = write_search(tmp_path / "run", train=True), tmp_path / "run" / "train"
    share = draw.choice([0.003, 0.02, 0.1])
    for path in [*search.rglob("*.json"), *search.rglob("*.jsonl"), *search.rglob("config.yaml")]:
        if path.suffix == ".jsonl":
            rows = [spoil(json.loads(line), draw, share) for line in path.read_text().splitlines()]
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        elif path.suffix == ".json":
            path.write_text(json.dumps(spoil(json.loads(path.read_text()), draw, share)))
        else:
            path.write_text(yaml.safe_dump(spoil(yaml.safe_load(path.read_text()), draw, share)))
    for folder in (search, train):
        page = page_of(folder)
        assert page.all("main") and not page.all("b")


def test_a_run_that_has_only_begun(tmp_path: Path) -> None:
    page = page_of(write_search(tmp_path / "run", ended=False, done=0), live=True)
    assert "Nothing to show yet" in page.said and "Running: before the first epoch's end." in page.said


def test_live_until_the_run_ends(tmp_path: Path) -> None:
    folder = write_search(tmp_path / "run", ended=False, done=4)
    page = page_of(folder, live=True)
    assert "Running: epoch 4 of 5, stage 2 of 2, about 63 s left." in page.said
    assert any("data-live" in attributes for attributes in page.all("p"))
    assert [a.get("http-equiv") for a in page.all("meta") if "http-equiv" in a] == ["refresh"]
    assert page.all("progress")[0]["value"] == "4"
    page = page_of(folder)
    assert "Not ended: epoch 4 of 5" in page.said and "goes on from here" in page.said
    page_text = page_of(write_search(folder), live=True)
    assert "Ended after 5 epochs." in page_text.said
    for stopped in (page, page_text):
        assert not any("data-live" in attributes for attributes in stopped.all("p"))
        assert not any("http-equiv" in attributes for attributes in stopped.all("meta"))


def test_a_page_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    folder, said = write_search(tmp_path / "run"), list[str]()
    (folder / PAGE).write_text("<p>my own notes</p>")
    for _ in range(3):
        refresh_report(folder, said.append)
    assert len(said) == 1 and "the run goes on" in said[0] and "no page of dasvit's" in said[0]
    assert (folder / PAGE).read_text() == "<p>my own notes</p>"
    with pytest.raises(UserError, match="left alone"):
        write_report(folder)
    refresh_report(tmp_path / "nowhere", said.append)
    assert len(said) == 2


def test_a_page_of_ours_is_replaced_whole(tmp_path: Path) -> None:
    folder = write_search(tmp_path / "run", ended=False, done=2)
    first = write_report(folder).read_text()
    write_search(folder)
    assert write_report(folder).read_text() != first
    assert not list(folder.glob(".*"))


def test_what_is_no_run_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no run folder"):
        read_run(tmp_path / "none")
    with pytest.raises(UserError, match="is no run folder"):
        read_run(tmp_path)
    write_json(tmp_path / "environment.json", {"kind": "train"})
    assert read_run(tmp_path).kind == "train"


def test_names_of_runs(tmp_path: Path) -> None:
    folder = write_search(tmp_path / "run", train=True)
    assert read_run(folder).name == "run" and read_run(folder / "train").name == "run/train"


def test_lines_of_an_older_stage_are_found_without_a_plan(tmp_path: Path) -> None:
    folder = write_search(tmp_path / "run")
    (folder / "config.yaml").unlink()
    run = read_run(folder)
    assert [(stage.start, stage.epochs) for stage in run.stages] == [(0, 3), (3, 2)]
    assert list(run.metrics) == [1, 2, 3, 4, 5]


def test_colours_mean_the_same_on_all_pages_of_a_run(tmp_path: Path) -> None:
    folder = write_search(tmp_path / "run", train=True)
    styles = [re.search(r"--op-0:.*", page_of(path).text) for path in (folder, folder / "train")]
    assert styles[0] and styles[1] and styles[0][0] == styles[1][0]


def test_report_needs_no_torch(tmp_path: Path) -> None:
    folder = write_search(tmp_path / "run", train=True)
    code = f"""
import sys
from dasvit.cli import main
try:
    main(["report", {str(folder)!r}])
except SystemExit as end:
    assert end.code == 0
assert "matplotlib" not in sys.modules
import dasvit.report.run.figures
assert not {{"torch", "timm", "sklearn"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
