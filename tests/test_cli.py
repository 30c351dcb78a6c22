"""The command line end to end on digits, good and bad."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from dasvit.cell.genotype import PUBLISHED, Genotype
from dasvit.cli import main
from dasvit.report import refresh_report

TINY = [
    "--config=digits",
    "--data.limit=200",
    "--model.width=16",
    "--model.layers=2",
    "--model.heads=2",
    "--space.heads=[2,4]",
    "--space.ratios=[0.5,1]",
    "--space.shifts=[]",
    "--search.finals.cells=0",
    "--search.batch_size=50",
    "--train.batch_size=50",
    "--train.epochs=2",
    '--search.stages={"layers":[1,2],"keep":[0,3],"epochs":[2,1],"weight_epochs":[1,0]}',
    "--runtime.device=cpu",
]


def call(capsys: pytest.CaptureFixture[str], *arguments: object, status: int = 0) -> tuple[str, str]:
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    assert end.value.code == status, err
    return out, err


def fails(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Call with a mistake: status 2, nothing on standard output, no traceback, the error on the last line."""
    out, err = call(capsys, *arguments, status=2)
    assert out == "" and "Traceback" not in err
    last = err.splitlines()[-1]
    assert last.startswith("dasvit: error: ") and err.count("dasvit: error: ") == 1
    return last


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search's run folder with the training of its cell in it, made by the commands themselves."""
    run = tmp_path_factory.mktemp("runs") / "digits"
    for arguments in (["search", *TINY, "--run", run], ["train", "--cell", run]):
        with pytest.raises(SystemExit) as end:
            main([str(argument) for argument in arguments])
        assert end.value.code == 0
    return run


@pytest.fixture
def digit(tmp_path: Path) -> Path:
    path = tmp_path / "digit.png"
    Image.fromarray(np.eye(8, dtype=np.uint8) * 255).save(path)
    return path


def test_the_run_folder_holds_what_its_page_says(trained: Path) -> None:
    names = {
        "config.yaml",
        "environment.json",
        "metrics.jsonl",
        "architecture.jsonl",
        "genotype.json",
        "derivation.json",
        "report.html",
    }
    assert names | {"checkpoints", "train"} <= {path.name for path in trained.iterdir()}
    names = {
        "config.yaml",
        "environment.json",
        "metrics.jsonl",
        "genotype.json",
        "result.json",
        "report.html",
        "model",
        "checkpoints",
    }
    assert names <= {path.name for path in (trained / "train").iterdir()}
    assert {path.name for path in (trained / "train" / "model").iterdir()} == {
        "config.json",
        "model.safetensors",
    }
    environment = json.loads((trained / "environment.json").read_text())
    assert environment["kind"] == "search" and environment["precision"] == "float32" and environment["classes"] == 10
    assert yaml.safe_load((trained / "config.yaml").read_text())["model"]["width"] == 16


def test_the_pages_say_how_the_runs_ended(trained: Path) -> None:
    for folder, epochs in ((trained, 3), (trained / "train", 2)):
        text = (folder / "report.html").read_text(encoding="utf-8")
        assert f"Ended after {epochs} epochs." in text and "data-live>" not in text
        assert ("trained: test top-1" in text) == (folder == trained)


def test_a_run_cut_off_leaves_a_page_that_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pages: list[str] = []

    def interrupted(*arguments: Any, **more: Any) -> None:
        refresh_report(*arguments, **more)
        pages.append((tmp_path / "run" / "report.html").read_text(encoding="utf-8"))
        if len(pages) == 2:  # the first is written before the first epoch
            raise KeyboardInterrupt

    monkeypatch.setattr("dasvit.session.refresh_report", interrupted)
    _, err = call(capsys, "search", *TINY, "--run", tmp_path / "run", status=130)
    assert f"report: {tmp_path}/run/report.html" in err and "data-live>" in pages[0] and "data-live>" in pages[1]
    text = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "Not ended: epoch 1 of 3, stage 1 of 2." in text and "data-live>" not in text


def test_training_takes_over_the_recipe_of_the_search(trained: Path) -> None:
    configs = [yaml.safe_load((trained / folder / "config.yaml").read_text()) for folder in (".", "train")]
    assert configs[0] == configs[1]


def test_training_says_what_limit_it_takes_over(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = f"data.limit 200 is taken over from {trained}: --data.limit 0 trains on all images"
    options = ["--train.epochs=1", "--train.optim.warmup_epochs=0.5", "--run"]
    _, err = call(capsys, "train", "--cell", trained, *options, tmp_path / "a")
    assert said in err and "warmup" not in err
    _, err = call(capsys, "train", "--cell", trained, "--data.limit=100", *options, tmp_path / "b")
    assert "is taken over" not in err
    _, err = call(capsys, "train", "--init", trained, *options, tmp_path / "c")
    assert said.replace(str(trained), str(trained / "train")) in err


def test_a_warmup_that_is_too_long_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, err = call(capsys, "train", "--model=vit", *TINY, "--run", tmp_path / "t")
    line = r"^epoch 2/2: training loss \(augmented, smoothed\) [\d.]+, test loss [\d.]+, test top-1 [\d.]+ %"
    assert re.search(line, err, re.M)
    assert "train.optim.warmup_epochs 4 is not shorter than the 2 epochs that there are" in err
    assert "--train.optim.warmup_epochs 0.2 leaves it time to fall" in err
    _, err = call(capsys, "search", *TINY, "--run", tmp_path / "s")
    assert "search.weights.warmup_epochs 1 is not shorter than the 1 epoch that there are" in err
    assert re.search(r"^stage 1/2, epoch 2/2: training loss [\d.]+, val top-1 ", err, re.M)


def test_the_same_command_again_finds_its_result(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (trained / "metrics.jsonl").read_text()
    out, _ = call(capsys, "search", *TINY, "--run", trained, "--json")
    assert json.loads(out)["genotype"] == json.loads((trained / "genotype.json").read_text())
    assert (trained / "metrics.jsonl").read_text() == before


def test_search_draws_its_cell(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, err = call(capsys, "search", *TINY, "--run", trained)
    assert "output = x1 + x2" in out and f"dasvit train --cell {trained}" in out
    assert "training and 360 test images" in err


def test_derive(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = call(capsys, "derive", trained, "--json")
    free = json.loads(out)
    assert free["genotype"] == json.loads((trained / "genotype.json").read_text())
    assert Path(free["cell"]).parent == trained / "derived"
    out, _ = call(
        capsys,
        "derive",
        trained,
        "--rule",
        "strongest",
        "--max-params",
        free["params"],
        "--out",
        tmp_path / "c.json",
        "--json",
    )
    cell = json.loads(out)
    assert cell["params"] <= free["params"]
    assert Genotype.from_json((tmp_path / "c.json").read_text()).to_dict() == cell["genotype"]
    out, _ = call(capsys, "cost", tmp_path / "c.json", "--config", trained / "config.yaml", "--json")
    assert json.loads(out)["params"] == cell["params"]


def test_derive_budget_is_exact_to_the_parameter(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, _ = call(capsys, "derive", trained, "--json")
    params = json.loads(out)["params"]
    out, _ = call(capsys, "derive", trained, "--max-params", params, "--json")
    assert json.loads(out)["params"] == params
    err = fails(capsys, "derive", trained, "--max-params", 1000)
    assert "the smallest has" in err
    smallest = int(re.findall(r"the smallest has ([\d,]+) parameters", err)[0].replace(",", ""))
    out, _ = call(capsys, "derive", trained, "--max-params", smallest, "--json")
    least = json.loads(out)
    assert least["params"] == smallest
    assert "the smallest has" in fails(capsys, "derive", trained, "--max-params", smallest - 1)
    assert "6M" in fails(capsys, "derive", trained, "--max-params", "many")


def test_derive_does_not_overwrite_another_cell(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "cell.json"
    out.write_text(PUBLISHED["dasvit_cifar10"].to_json())
    assert "give --out another file" in fails(capsys, "derive", trained, "--out", out)
    assert Genotype.from_json(out.read_text()) == PUBLISHED["dasvit_cifar10"]


def test_evaluate(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = call(capsys, "evaluate", trained, "--json")
    judged = json.loads(out)
    result = json.loads((trained / "train" / "result.json").read_text())
    assert judged["top1"] == pytest.approx(result["top1"]) and judged["confusion"] == result["confusion"]
    assert sum(map(sum, judged["confusion"])) == judged["images"] == 360
    out, _ = call(capsys, "evaluate", trained / "train" / "model")
    assert "top-5" in out and "confusion" in out


def test_predict(trained: Path, digit: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = call(capsys, "predict", trained, digit, "--top", 3, "--json")
    (row,) = json.loads(out)["images"]
    assert row["image"] == str(digit) and len(row["predictions"]) == 3
    assert row["predictions"][0]["label"] in set("0123456789")
    out, _ = call(capsys, "predict", trained, digit, "--top", 10, "--json")
    shares = [p["probability"] for p in json.loads(out)["images"][0]["predictions"]]
    assert sum(shares) == pytest.approx(1, abs=1e-5) and shares == sorted(shares, reverse=True)


def test_cost_of_everything(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = call(capsys, "cost", "dasvit_cifar10", "--json")
    assert json.loads(out) == {
        "name": "dasvit_cifar10",
        "classes": 10,
        "params": 50_449_162,
        "macs": 10_591_348_224,
        "macs_linear": 9_876_020_736,
    }
    out, _ = call(capsys, "cost", "resnet18", "--json")
    assert json.loads(out)["params"] == 11_689_512 - 990 * 513 and json.loads(out)["classes"] == 10
    out, _ = call(capsys, "cost", "resnet18", "--classes", 1000, "--json")
    assert json.loads(out)["params"] == 11_689_512
    out, _ = call(capsys, "cost", trained / "train", "--json")
    params = json.loads(out)["params"]
    assert params == json.loads((trained / "train" / "result.json").read_text())["params"]
    out, _ = call(capsys, "cost", trained, "--json")
    assert json.loads(out)["params"] == params
    small = [
        "--model.width",
        8,
        "--model.heads",
        2,
        "--model.layers",
        1,
        "--model.image_size",
        8,
        "--model.patch_size",
        4,
    ]
    out, _ = call(capsys, "cost", "vit", *small)
    params, macs = r"vit: 1\.\d\dk parameters \(1,\d{3}\)", r"\d\.\d\dk multiply-adds an image \(\d\.\d\dk of .*\)"
    assert re.fullmatch(rf"{params}, {macs}; a head of 10 classes\n", out)


def test_options_may_stand_before_what_they_are_about(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    width = json.loads(call(capsys, "cost", trained, "--json")[0])
    assert json.loads(call(capsys, "cost", "--classes", 10, "--json", trained)[0]) == width
    out, _ = call(capsys, "evaluate", "--runtime.device", "cpu", "--json", trained / "train")
    assert json.loads(out)["images"] == 360


def test_a_trained_model_has_its_own_head(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "leave out --classes" in fails(capsys, "cost", trained / "train", "--classes", 100)


def test_evaluation_takes_the_data_that_the_training_held_out(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """digits has no test set of its own: the split is the training's, whose seed is not the search's here."""
    shutil.copytree(trained, tmp_path / "r")
    shutil.rmtree(tmp_path / "r" / "train")
    call(capsys, "train", "--cell", tmp_path / "r", "--runtime.seed", 7)
    result = json.loads((tmp_path / "r" / "train" / "result.json").read_text())
    judged = json.loads(call(capsys, "evaluate", tmp_path / "r", "--json")[0])
    assert judged["confusion"] == result["confusion"]


def test_a_width_that_the_search_space_does_not_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "r"
    call(capsys, "train", "--model", "vit", *TINY, "--model.width", 6, "--model.heads", 3, "--run", run)
    call(capsys, "train", "--model", "vit", *TINY, "--model.width", 6, "--model.heads", 3, "--run", run)
    assert json.loads(call(capsys, "evaluate", run, "--json")[0])["images"] == 360


def test_a_data_set_of_other_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Three classes: the budget of a search that did not end is counted with a head of three."""
    make_folder(tmp_path / "images", ("a", "b", "c"), 20)
    data = ["--data.name=imagefolder", f"--data.path={tmp_path / 'images'}", "--data.limit=0", "--search.batch_size=10"]
    call(capsys, "search", *TINY, *data, "--run", tmp_path / "r")
    (tmp_path / "r" / "genotype.json").unlink()
    (tmp_path / "r" / "derivation.json").unlink()
    derived = json.loads(call(capsys, "derive", tmp_path / "r", "--json")[0])
    cost = json.loads(call(capsys, "cost", derived["cell"], "--json")[0])
    assert cost["params"] == derived["params"]
    ten = json.loads(call(capsys, "cost", derived["cell"], "--classes", 10, "--json")[0])
    assert ten["params"] - cost["params"] == 7 * 17


def test_quickstart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny = [option for option in TINY if not option.startswith("--config")]
    out, err = call(capsys, "quickstart", *tiny, "--run", tmp_path / "q")
    assert "searched cell" in out and "│ ViT " in out and "dasvit search --config folder-small" in out
    assert "1/3 search" in err and "3/3 train a ViT" in err
    rows = json.loads(call(capsys, "quickstart", *tiny, "--run", tmp_path / "q", "--json")[0])["networks"]
    assert [row["images"] for row in rows] == [360, 360]


def test_a_timm_baseline_goes_through_the_same_loop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        "train",
        "--model",
        "resnet18",
        *TINY,
        "--model.image_size=32",
        "--train.epochs=1",
        "--run",
        tmp_path / "r",
    ]
    out, _ = call(capsys, *arguments, "--json")
    assert json.loads(out)["images"] == 360
    out, _ = call(capsys, "evaluate", tmp_path / "r", "--json")
    assert json.loads(out)["images"] == 360


def test_training_a_published_cell_with_everything_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    augment = {"crop_padding": 1, "flip": 0.5, "randaugment": "rand-m5", "erasing": 0.2, "color_jitter": 0.1}
    augment |= {"mixup": 0.2, "cutmix": 1.0}
    arguments = [
        "train",
        "--cell",
        "dasvit_cifar10",
        *TINY,
        f"--train.augment={json.dumps(augment)}",
        "--train.ema=0.9",
    ]
    arguments += ["--train.drop_path=0.1", "--train.optim.clip_grad=1", "--runtime.precision=bfloat16"]
    out, _ = call(capsys, *arguments, "--run", tmp_path / "r", "--json")
    metrics = [json.loads(line) for line in (tmp_path / "r" / "metrics.jsonl").read_text().splitlines()]
    assert json.loads(out)["top1"] == metrics[-1]["test_top1"] and len(metrics) == 2
    assert all(0.5 < row["train_loss"] < 5 for row in metrics)  # ten classes by chance: 2.3
    evaluated, _ = call(capsys, "evaluate", tmp_path / "r", "--json")
    assert json.loads(evaluated)["top1"] == json.loads(out)["top1"]


def test_precision_is_measured_once_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        "train",
        "--cell",
        "dasvit_cifar10",
        *TINY,
        "--runtime.precision=auto",
        "--run",
        tmp_path / "r",
    ]
    _, err = call(capsys, *arguments)
    environment = json.loads((tmp_path / "r" / "environment.json").read_text())
    assert f"precision: {environment['precision']}" in err
    assert set(environment["precision_seconds"]) == {"float32", "bfloat16"}
    _, err = call(capsys, *arguments)
    assert "precision:" not in err


def test_plain_darts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call(capsys, "search", *TINY, "--method", "darts", "--run", tmp_path / "r", "--json")
    config = yaml.safe_load((tmp_path / "r" / "config.yaml").read_text())["search"]
    assert config["method"] == "darts" and config["tokens"]["ratio"] == 1
    assert config["fairness"]["skip"] == config["fairness"]["types"] == 0
    assert config["stages"]["layers"] == [1] and config["stages"]["epochs"] == [3]


def test_fields_of_several_values_take_commas_and_one_value_alone(capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "--space.heads",
        "2,4",
        "--space.convs",
        1,
        "--search.stages.epochs=4,5,6",
        "--search.alphas.betas=0.4,0.9",
    ]
    out, _ = call(capsys, "search", "--config", "digits", *words, "--print_config")
    resolved = yaml.safe_load(out)
    assert resolved["space"]["heads"] == [2, 4] and resolved["space"]["convs"] == [1.0]
    assert resolved["search"]["stages"]["epochs"] == [4, 5, 6] and resolved["search"]["alphas"]["betas"] == [0.4, 0.9]


def test_print_config_shows_the_whole_resolved_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = call(capsys, "search", "--config", "digits", "--search.tokens.ratio", 0.25, "--print_config")
    shown = yaml.safe_load(out)
    assert shown["search"]["tokens"] == {"ratio": 0.25, "dim": 64, "norm": False}
    assert shown["model"]["width"] == 64 and shown["train"]["optim"]["lr"] == 0.002


def test_json_is_all_there_is_on_standard_output(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "dasvit", "search", *TINY, "--run", str(tmp_path / "r"), "--json"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert Genotype.from_dict(json.loads(result.stdout)["genotype"])


# --- mistakes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["serch"], "Did you mean 'search'"),
        (["search", "--config", "digts"], "Did you mean 'digits'"),
        (["search", "--search.tokens.ratoi", "1"], "Did you mean --search.tokens.ratio"),
        (["search", "--rnu", "x"], "Did you mean --run"),
        (["search", "--search.batch_size", "many"], "search.batch_size takes int, not 'many'"),
        (["search", "--method", "dart"], "Did you mean 'darts'"),
        (["search", *TINY, "--data.name", "digit"], "Did you mean 'digits'"),
        (["search", *TINY, "--data.name", "imagefolder", "--data.path", "nowhere"], "nowhere"),
        (["search", *TINY, "--data.name", "cifar10"], "--data.path"),
        (
            ["search", *TINY, "--search.batch_size", "5000"],
            "search.batch_size is 5,000, but there are 100 images",
        ),
        (["search", *TINY, "--model.patch_size", "3"], "not divisible into patches of 3"),
        (["search", *TINY, "--model.width", "18"], "not divisible by 4 attention heads"),
        (["search", *TINY, "--runtime.device", "cuda:7"], "set runtime.device to auto or cpu"),
        (["search", *TINY, "--runtime.device", "gpu"], "unknown device"),
        (["search", *TINY, "--search.relaxation", "softmx"], "Did you mean 'softmax'"),
        (["train", *TINY], "give one of --cell"),
        (["train", *TINY, "--cell", "dasvit_cifar"], "Did you mean 'dasvit_cifar10'"),
        (["train", *TINY, "--cell", "nowhere/cell.json"], "there is no file"),
        (["train", *TINY, "--model", "resnet_18"], "Did you mean"),
        (
            ["train", *TINY, "--cell", "dasvit_cifar10", "--model.width", "20"],
            "not divisible by 8 attention heads",
        ),
        (
            [
                "train",
                *TINY,
                "--cell",
                "dasvit_cifar10",
                "--train.augment.mixup",
                "1",
                "--train.batch_size",
                "25",
            ],
            "must be a multiple of 2",
        ),
        (["train", *TINY, "--cell", "dasvit_cifar10", "--train.optim.lr", "-1"], "train.optim.lr must not be negative"),
        (
            ["train", *TINY, "--cell", "dasvit_cifar10", "--train.drop_path", "1.5"],
            "train.drop_path must lie in [0, 1)",
        ),
        (["train", *TINY, "--cell", "dasvit_cifar10", "--train.augment.mixup", "-1"], "must not be negative"),
        (["search", *TINY, "--search.alphas.betas", "[2.0, 0.9]"], "search.alphas.betas must lie in [0, 1)"),
        (["search", *TINY, "--search.augment.mixup", "1"], "for train.augment"),
        (["search", *TINY, "--space.nodes", "17"], "space.nodes must be at most 16"),
        (["search", *TINY, "--search.stages.weight_epochs", "[1,1]"], "stage 2 of search.stages trains weights alone"),
        (["search", "--conf", "digits"], "unknown option --conf. Did you mean --config?"),
        (["search", "--model", "vit"], "model"),
        (["search", "--config"], "config"),
        (["evaluate", "."], "holds no trained model"),
        (["cost", "resnet_18"], "Did you mean"),
        (["memory", "--fits", "24"], "24G"),
        (["memory", "--out", "memory.jpg"], ".svg"),
        (["memory", "--runtime.device", "gpu"], "unknown device"),
        (["derive", "nowhere"], "no run folder"),
        (["evaluate", "nowhere"], "there is no model nowhere"),
        (["predict", "nowhere", "x.png"], "there is no model nowhere"),
        (
            ["search", "--search.fairness.upper", f"{10**400}"],
            "--search.fairness.upper holds a number that is too large",
        ),
    ],
    ids=lambda value: " ".join(value[:1] + value[-2:]) if isinstance(value, list) else None,
)
def test_mistakes(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert words in fails(capsys, *arguments)
    # and, once the mistake is mended, no half-made run stands in the way
    head = (".lock", "config.yaml", "environment.json", "data.json", "held_out.txt", "report.html")
    assert not any(path.name not in head for path in tmp_path.rglob("*.*"))


def test_a_mended_mistake_runs_in_the_same_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fails(capsys, "search", *TINY, "--search.batch_size", 5000, "--run", tmp_path / "r")
    call(capsys, "search", *TINY, "--run", tmp_path / "r", "--json")


def test_a_run_folder_of_another_run_stays_as_it_is(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()}
    err = fails(capsys, "search", *TINY, "--runtime.seed", 1, "--run", trained)
    assert "already holds another run (search), which has runtime.seed 0 (not 1): give --run" in err
    err = fails(capsys, "train", "--cell", "dasvit_cifar10", *TINY, "--run", trained / "train")
    assert "already holds another run (train), which has subject {" in err
    err = fails(
        capsys,
        "train",
        "--cell",
        trained,
        "--train.epochs=1",
        "--data.path=",
        "--train.ema=0.5",
        "--run",
        trained / "train",
    )
    assert "which has train.epochs 2 (not 1), train.ema 0.0 (not 0.5): give" in err
    assert {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()} == before


def test_a_folder_of_other_files_stays_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    assert "is not empty and holds no run" in fails(capsys, "search", *TINY, "--run", tmp_path)
    assert "is a file" in fails(capsys, "search", *TINY, "--run", tmp_path / "thesis.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_configuration_of_the_users_own_stays_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run in the folder of the recipe it was started with would write over the recipe."""
    text = "# mine\ndata: {name: digits}\n"
    (tmp_path / "config.yaml").write_text(text)
    err = fails(capsys, "search", *TINY, "--config", tmp_path / "config.yaml", "--run", tmp_path)
    assert "is not empty and holds no run" in err
    assert (tmp_path / "config.yaml").read_text() == text


def test_a_mistake_in_the_data_leaves_no_run_behind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fails(capsys, "search", *TINY, "--data.name", "cifar10", "--run", tmp_path / "r")
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    "change", [{"op": "fold_3"}, {"source": "x2", "target": "x1"}, None, {"format": "dasvit-genotype/9"}]
)
def test_broken_genotypes(change: dict[str, Any] | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = PUBLISHED["dasvit_cifar10"].to_dict()
    if change is None:
        content["edges"].pop()
    elif "format" in change:
        content.update(change)
    else:
        content["edges"][0].update(change)
    path = tmp_path / "cell.json"
    path.write_text(json.dumps(content))
    assert str(path) in fails(capsys, "train", *TINY, "--cell", path)
    assert str(path) in fails(capsys, "cost", path)


def make_folder(path: Path, classes: tuple[str, ...], images: int) -> None:
    for part in ("train", "val"):
        for number, name in enumerate(classes):
            (path / part / name).mkdir(parents=True)
            for i in range(images):
                pixels = np.full((8, 8, 3), 60 * number + i, np.uint8)
                Image.fromarray(pixels).save(path / part / name / f"{i}.png")


def test_classes_that_the_model_does_not_know(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_folder(tmp_path, ("a", "b"), 3)
    err = fails(capsys, "evaluate", trained, "--data.name", "imagefolder", "--data.path", tmp_path)
    assert "holds images of a, b, which the model does not know: its classes are 0, 1, 2, 3, 4 and 5 more" in err


def test_a_broken_image_is_named(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    assert "broken.png" in fails(capsys, "predict", trained, tmp_path / "broken.png")


def test_a_model_without_its_weights(
    trained: Path, digit: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(trained / "train" / "model", tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").write_bytes(b"no weights")
    assert "cannot load" in fails(capsys, "predict", tmp_path / "model", digit)
    (tmp_path / "model" / "model.safetensors").unlink()
    assert "model.safetensors" in fails(capsys, "predict", tmp_path / "model", digit)


def test_a_damaged_search(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(trained, tmp_path / "r")
    (tmp_path / "r" / "architecture.jsonl").write_text('{"weights": {}}\n')
    assert "does not fit" in fails(capsys, "derive", tmp_path / "r")
    (tmp_path / "r" / "architecture.jsonl").write_text("{\n")
    assert "line 1 is not JSON" in fails(capsys, "derive", tmp_path / "r")
    assert "holds a training, not a search" in fails(capsys, "derive", tmp_path / "r" / "train")


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    _, err = call(capsys, "search", "--config", "nothing", "--debug", status=2)
    assert "Traceback" in err and "unknown recipe" in err.splitlines()[-1]


def test_a_model_folder_that_says_too_little(
    trained: Path, digit: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(trained / "train" / "model", tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    del config["pretrained_cfg"]["mean"]
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    assert "does not say what images" in fails(capsys, "predict", tmp_path / "model", digit)


def test_memory(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = [option for option in TINY if not option.startswith(("--data", "--train"))]
    counted = json.loads(call(capsys, "memory", *recipe, "--json")[0])
    assert counted["figures"] == ["runs/memory.png", "runs/memory.svg"]
    assert Path("runs/memory.png").read_bytes().startswith(b"\x89PNG") and "<svg" in Path("runs/memory.svg").read_text()
    assert (counted["device"], counted["precision"], counted["batch_size"]) == ("cpu", "float32", 50)
    names = [(row["stage"], row["layers"], row["operations"], row["network"]) for row in counted["networks"]]
    assert names == [
        (1, 1, 6, "plain DARTS"),
        (1, 1, 6, "DASViT, ρ 1"),
        (1, 1, 6, "DASViT, ρ 0.5"),
        (2, 2, 6, "plain DARTS"),
        (2, 2, 3, "DASViT, ρ 1"),
        (2, 2, 3, "DASViT, ρ 0.5"),
    ]
    for row in counted["networks"]:
        peaks = [row["peak_bytes"][str(2**power)] for power in range(11)]
        assert peaks == sorted(peaks) and peaks[-1] > peaks[0]
    plain, full, half = counted["networks"][:3]
    assert plain["peak_bytes"]["1024"] > full["peak_bytes"]["1024"] > half["peak_bytes"]["1024"]
    assert list(counted["largest_batch"]) == ["12 GB", "24 GB", "80 GB"]

    out, _ = call(capsys, "memory", *recipe, "--out", "elsewhere/figure")
    assert "24 GB: a batch of" in out and "Figure: elsewhere/figure.png" in out
    assert all(f"{2**power}" in out for power in range(11))
    out, _ = call(capsys, "memory", *recipe, "--fits", "24G", "--out", "not-drawn")
    assert out.count("\n") == 1 and f"a batch of {counted['largest_batch']['24 GB']:,} fits" in out
    assert not Path("not-drawn.png").exists()
    out, _ = call(capsys, "memory", *recipe, "--fits", "0.1M")
    assert "not even a batch of one fits" in out
    out, _ = call(capsys, "memory", *recipe, "--search.method", "darts", "--json", "--out", "")
    assert [row["network"] for row in json.loads(out)["networks"]] == ["plain DARTS", "DASViT, ρ 1"]


def test_search_warns_before_it_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dasvit.memory.fits.total_memory", lambda device: 2 * 10**6)
    _, err = call(capsys, "search", *TINY, "--run", tmp_path / "run")
    warning, *later = [line for line in err.splitlines() if not line.startswith(("data: ", "  "))]
    assert warning.startswith("warning: stage ") and "--search.batch_size" in warning
    assert any(line.startswith("stage 1/2, epoch 1/2") for line in later)
