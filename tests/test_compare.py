"""`dasvit compare`: the paper's cost columns, trainings that go on where they stopped, and every format."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from dasvit.cell.genotype import PUBLISHED
from dasvit.cli.parsing import parse
from dasvit.commands import compare as command
from dasvit.commands import run_command
from dasvit.compare import trainings
from dasvit.compare.networks import costed, find_networks
from dasvit.config import Config
from dasvit.errors import UserError
from dasvit.models.paper import DATASETS, PAPER
from dasvit.report.compare.tables import as_csv, as_latex, as_markdown, columns, ranked
from dasvit.runtime.progress import Reporter
from dasvit.training.pipeline import Subject, TrainResult, run_training
from helpers import cut_off, untimed
from test_cli import call, fails

TINY = [
    "--config=digits",
    "--data.limit=100",
    "--model.width=16",
    "--model.layers=2",
    "--model.heads=2",
    "--train.batch_size=50",
    "--train.epochs=2",
    "--runtime.device=cpu",
]
NETWORKS = ["dasvit_cifar10", "vit"]


@pytest.fixture(scope="module")
def paper_rows() -> list[dict[str, Any]]:
    config = parse("compare", ["--cost-only"])[1]
    assert config is not None
    entries = find_networks([], "", "full")
    return [costed(entry, config, entry.classes, ptflops=True) for entry in entries]


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two networks with two seeds each."""
    run = tmp_path_factory.mktemp("runs") / "compare"
    run_command("compare", *parse("compare", [*NETWORKS, *TINY, "--seeds=2", "--run", str(run)]))
    return run


# --- the paper's table ----------------------------------------------------------------------------------------------


def test_parameters_of_the_paper(paper_rows: list[dict[str, Any]]) -> None:
    assert len(paper_rows) == len(PAPER) == 13
    for row in paper_rows:
        margin = 0.7 if row["network"] == "AutoFormer-B" else 0.2  # the paper leaves its embedding out
        assert row["params"] / 1e6 == pytest.approx(row["published"]["params"], abs=margin), row["network"]


def test_flops_of_the_paper(paper_rows: list[dict[str, Any]]) -> None:
    for row in paper_rows:
        # Of AutoFormer the paper gives what we count (11.69, cut off); ptflops would give 10.4.
        key = "macs" if row["network"] == "AutoFormer-B" else "paper_flops"
        assert row[key] / 1e9 == pytest.approx(row["published"]["flops"], abs=0.1), row["network"]


def test_what_ptflops_leaves_out(paper_rows: list[dict[str, Any]]) -> None:
    """Of ViT-B/16 the qkv and projection layers, 12 · 197 · 4 · 768² products; norms and biases come on top."""
    row = next(row for row in paper_rows if row["network"] == "ViT-B/16")
    assert 0 < row["paper_flops"] - (row["macs"] - 12 * 197 * 4 * 768**2) < 0.03e9


def test_the_papers_accuracies() -> None:
    """Two rows read off the paper, and what must hold of all."""
    rows = {row.label: row for row in PAPER}
    assert rows["ViT-B/16"].accuracy == {"cifar10": (78.8, 97.9), "cifar100": (45.7, 72.0), "imagenet100": (39.7, 66.1)}
    assert rows["VGG-19"].accuracy["imagenet100"] == (30.3, 54.3)
    assert [row.classes for row in PAPER] == [100] * 7 + [10] * 6
    for row in PAPER:
        assert row.design in ("Manual", "Auto") and set(row.accuracy) <= set(DATASETS)
        assert all(top1 < top5 <= 100 for top1, top5 in row.accuracy.values())
    cells = [rows["DASViT (CIFAR-10 cell)"], rows["DASViT (ImageNet-100 cell)"]]
    assert {name for row in cells for name in row.accuracy} == set(DATASETS)


def test_cost_alone(capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = call(capsys, "compare", "dasvit_cifar10", "autoformer_b", "resnet18", "--cost-only", "--published")
    assert "AutoFormer-B" in out and "72.5" not in out and "52.5M" in out and "50.4M" in out and "80.1 / 98.4" in out
    out, _ = call(capsys, "compare", "resnet18", "--cost-only", "--classes", 10, "--json")
    (row,) = json.loads(out)["networks"]
    assert row["params"] == 11_181_642 and row["classes"] == 10 and row["design"] == "" and "published" not in row


def test_the_papers_rows_and_one_more(capsys: pytest.CaptureFixture[str]) -> None:
    entries = find_networks(["resnet18"], "paper", "small")
    assert [entry.key for entry in entries] == [*(row.small for row in PAPER), "resnet18"]
    assert [entry.classes for entry in entries] == [10] * 14
    arguments = ["--cost-only", "--scale", "small", "--ptflops", "no", "--format", "csv"]
    out, _ = call(capsys, "compare", "vgg16", "resnet18", *arguments)
    first, second = csv.DictReader(io.StringIO(out))
    assert (first["network"], first["name"], second["name"]) == ("VGG-16", "vgg16_small", "resnet18")
    assert first["published.cifar10.top1"] == "72.5" and second["published.cifar10.top1"] == ""
    assert "paper_flops" not in first


def test_without_ptflops(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "has_ptflops", lambda: False)
    out, err = call(capsys, "compare", "resnet18", "--cost-only")
    assert "ptflops" not in out and "pip install 'dasvit[ptflops]'" in err
    assert "dasvit[ptflops]" in fails(capsys, "compare", "resnet18", "--cost-only", "--ptflops", "yes")


# --- trainings ------------------------------------------------------------------------------------------------------


def test_means_over_paired_seeds(compared: Path) -> None:
    rows = json.loads((compared / "compare.json").read_text())["networks"]
    assert [row["network"] for row in rows] == ["DASViT (CIFAR-10 cell)", "vit"]
    for row, name in zip(rows, NETWORKS, strict=True):
        results = [json.loads((compared / name / f"seed{k}" / "result.json").read_text()) for k in (0, 1)]
        first, second = (result["top1"] for result in results)
        assert row["top1"] == pytest.approx((first + second) / 2)
        assert row["top1_sd"] == pytest.approx(abs(first - second) / 2**0.5)
        assert row["params"] == results[0]["params"] and row["seeds"] == 2
        assert row["runs"] == [str(compared / name / f"seed{k}") for k in (0, 1)]
        times = [epoch["seconds"] for k in (0, 1) for epoch in rows_of(compared / name / f"seed{k}")]
        assert min(times) <= row["seconds_per_epoch"] <= max(times) and row["images_per_second"] > 0


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_comparison_trains_as_train_does(compared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call(capsys, "train", "--model", "vit", *TINY, "--runtime.seed", 1, "--run", tmp_path / "vit")
    assert untimed(tmp_path / "vit" / "metrics.jsonl") == untimed(compared / "vit" / "seed1" / "metrics.jsonl")


def test_again_nothing_is_trained(compared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_bytes() for path in compared.rglob("*") if path.is_file()}
    out, err = call(capsys, "compare", *NETWORKS, *TINY, "--seeds", 2, "--run", compared)
    assert err.count("is done") == 4 and "±" in out and "s/epoch" in out and "images/s" in out
    assert {path: path.read_bytes() for path in compared.rglob("*") if path.is_file()} == before


def test_an_interrupted_comparison_goes_on(
    compared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [*NETWORKS, *TINY, "--seeds=2", "--run", str(tmp_path / "r")]
    parsed = parse("compare", arguments)
    # Lines: eight of the data; heading, data, page, two epochs and checkpoints of the first; then the second's.
    cut_off(monkeypatch, 24, lambda: run_command("compare", *parsed))
    assert (tmp_path / "r" / "compare.md").is_file()  # of what is done
    out, err = call(capsys, "compare", *arguments, "--json")
    assert err.count("is done") == 1
    for name in NETWORKS:
        for seed in ("seed0", "seed1"):
            rows = (root / name / seed / "metrics.jsonl" for root in (compared, tmp_path / "r"))
            assert untimed(next(rows)) == untimed(next(rows))
    whole = json.loads((compared / "compare.json").read_text())["networks"]
    assert [row["top1"] for row in json.loads(out)["networks"]] == [row["top1"] for row in whole]


def test_one_more_network_joins(compared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = compared / "vit" / "seed0"  # a run folder of a baseline stands for the baseline
    cell = compared.parent / "mine.json"
    cell.write_text(PUBLISHED["dasvit_imagenet100"].to_json())
    tiny = [*TINY, "--model.width=24", "--train.epochs=1", "--run", str(compared.parent / "other"), "--json"]
    out, _ = call(capsys, "compare", found, cell, *tiny)
    rows = json.loads(out)["networks"]
    assert [row["name"] for row in rows] == ["seed0", "mine"] and [row["design"] for row in rows] == ["Manual", "Auto"]


def test_small_networks_train(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["resnet50", "autoformer_b", "vit"]
    tiny = [*TINY, "--data.limit=40", "--data.eval_limit=40", "--train.batch_size=20", "--train.epochs=1"]
    tiny += ["--model.image_size=32", "--model.patch_size=4", "--scale=small"]
    out, _ = call(capsys, "compare", *names, *tiny, "--published", "--run", tmp_path / "r", "--format", "md")
    lines = out.splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["ResNet-50", "AutoFormer-B", "ViT-B/16"]
    assert "paper parameters" in lines[0] and "paper CIFAR-10" not in lines[0]  # these are digits


def test_one_failure_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def failing(config: Config, subject: Subject, folder: str, reporter: Reporter, **options: Any) -> TrainResult:
        if subject != "vit":
            raise UserError("the train loss became nan in epoch 1.")
        return run_training(config, subject, folder, reporter, **options)

    monkeypatch.setattr(trainings, "run_training", failing)
    out, err = call(capsys, "compare", *NETWORKS, *TINY, "--run", tmp_path / "r", "--format", "md", status=2)
    assert "1 training(s) failed" in err.splitlines()[-1] and "became nan" in err
    first, second = out.splitlines()[2:]
    assert first.split("|")[2].strip() == "–" and second.split("|")[2].strip().endswith("%")


def test_the_order_is_that_of_the_metric(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = call(
        capsys, "compare", *NETWORKS, *TINY, "--train.epochs=1", "--search.metric=macro_f1", "--run", tmp_path / "r"
    )
    rows = json.loads((tmp_path / "r/compare.json").read_text())["networks"]
    order = sorted(rows, key=lambda row: -row["macro_f1"])
    assert f"by macro-F1, best first: {order[0]['network']} {order[0]['macro_f1']:.2f} %, " in out
    assert ranked(rows[:1], "top1") == "" and ranked(rows, "top1").startswith("by top-1, best first: ")


# --- formats --------------------------------------------------------------------------------------------------------

ROWS = [
    {"network": "a_b & c", "name": "a", "design": "Auto", "params": 1.5e6, "macs": 2e9, "top1": 50.0, "top5": 90.0},
    {
        "network": "d|e",
        "name": "d",
        "design": "",
        "params": 2e6,
        "macs": 3e6,
        "published": {"params": 2.0, "flops": 0.1},
    },
]
ROWS[0] |= {"top1_sd": 1.25, "top5_sd": 0.5, "runs": ["r/0", "r/1"]}


def test_markdown() -> None:
    assert as_markdown(ROWS, columns(ROWS)).splitlines() == [
        "| network | top-1 | top-5 | parameters | multiply-adds | design |",
        "| --- | ---: | ---: | ---: | ---: | --- |",
        "| a_b & c | 50.00 ± 1.25 % | 90.00 ± 0.50 % | 1.50M | 2.00G | Auto |",
        "| d\\|e | – | – | 2.00M | 3.00M | – |",
    ]


def test_latex() -> None:
    lines = as_latex(ROWS, columns(ROWS, [])).splitlines()
    assert lines[0] == r"\begin{tabular}{lrrrrrrl}" and lines[-1] == r"\end{tabular}"
    assert lines[4].startswith(r"a\_b \& c & 50.00 $\pm$ 1.25 \% & 90.00 $\pm$ 0.50 \% & 1.50M & -- & 2.00G & -- &")
    assert lines[5].startswith(r"d|e & -- & -- & 2.00M & 2.0M & 3.00M & 0.1G &") and lines[5].endswith(r" \\")


def test_csv() -> None:
    first, second = csv.DictReader(io.StringIO(as_csv(ROWS)))
    assert first["top1_sd"] == "1.25" and first["runs"] == "r/0 r/1" and first["published.params"] == ""
    assert second["published.flops"] == "0.1" and second["network"] == "d|e" and float(second["params"]) == 2e6


def test_the_run_folder_holds_every_format(compared: Path) -> None:
    rows = json.loads((compared / "compare.json").read_text())["networks"]
    assert (compared / "compare.csv").read_text() == as_csv(rows)
    assert (compared / "compare.md").read_text() == as_markdown(rows, columns(rows))
    assert (compared / "compare.tex").read_text() == as_latex(rows, columns(rows))


# --- mistakes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["resnet_18", "--cost-only"], "Did you mean"),
        (["nowhere/cell.json", "--cost-only"], "there is no file"),
        (["vit", "vit", "--cost-only"], "two networks are called vit"),
        (["--rows", "all", "--cost-only"], "Valid: paper"),
        (["--scale", "tiny", "--cost-only"], "Valid: full, small"),
        (["--format", "pdf", "--cost-only"], "Valid: table, csv"),
        (["--ptflops", "maybe", "--cost-only"], "Valid: auto"),
        (["vit", "--seeds", "0"], "--seeds must be at least 1"),
        (["vit", "--classes", "5"], "--classes goes with --cost-only"),
        (["vit"], "--data.path"),
        (["vit", "dasvit_cifar10", *TINY, "--model.width=20", "--model.heads=5"], "not divisible by 8 attention heads"),
        (["vit", "vgg11", *TINY, "--train.drop_path=0.1"], "Set drop_path to 0"),
    ],
    ids=lambda value: " ".join(value[:3]) if isinstance(value, list) else None,
)
def test_mistakes(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert words in fails(capsys, "compare", *arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_another_comparison_stays_as_it_is(compared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_bytes() for path in compared.rglob("*") if path.is_file()}
    assert "already holds another run" in fails(capsys, "compare", "vit", *TINY, "--train.epochs=3", "--run", compared)
    assert "already holds another run" in fails(capsys, "compare", "vit", *TINY, "--cost-only", "--run", compared)
    assert {path: path.read_bytes() for path in compared.rglob("*") if path.is_file()} == before


def test_a_folder_of_other_files_stays_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "compare.csv").write_text("mine")
    err = fails(capsys, "compare", "vit", *TINY, "--cost-only", "--run", tmp_path)
    assert "holds no run" in err and (tmp_path / "compare.csv").read_text() == "mine"
