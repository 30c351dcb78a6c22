"""Files of others are data: none of them runs code, and none of them chooses where is written."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import sys
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from PIL import Image
from rich.console import Console

from dasvit.cell.genotype import load_genotype
from dasvit.config import DataConfig
from dasvit.config.recipe import from_dict, read_recipe
from dasvit.data import load_data
from dasvit.errors import UserError
from dasvit.models import folder as folder_module
from dasvit.models.folder import load_model
from dasvit.report.tables import confusion_table, network_table
from dasvit.runtime.checkpoint import load_checkpoint
from helpers import call_cli, record, tree


class Payload:
    """An object that makes a folder when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    return tmp_path / "the payload ran"


def planted(marker: Path) -> dict[str, bytes]:
    """Return the payload in every form that a reader of pickles could fall for."""
    payload = Payload(marker)
    saved, legacy, objects, archive = io.BytesIO(), io.BytesIO(), io.BytesIO(), io.BytesIO()
    torch.save({"state": payload}, saved)
    torch.save({"state": payload}, legacy, _use_new_zipfile_serialization=False)
    np.save(objects, np.array([payload], dtype=object), allow_pickle=True)
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps(payload))
        file.writestr("archive/version", "3\n")
    return {
        "pickle": pickle.dumps(payload),
        "old pickle": pickle.dumps(payload, protocol=0),
        "torch": saved.getvalue(),
        "legacy torch": legacy.getvalue(),
        "npy": objects.getvalue(),
        "zip": archive.getvalue(),
        "yaml": f"!!python/object/apply:os.mkdir [{marker}]\n".encode(),
        "yaml within": f"data: {{name: !!python/object/apply:os.mkdir [{marker}]}}\n".encode(),
        "json": json.dumps({"py/reduce": [{"py/function": "os.mkdir"}, [str(marker)]]}).encode(),
    }


FORMS = sorted(planted(Path("x")))


def test_the_payload_works(marker: Path) -> None:
    """Otherwise the tests below would show nothing."""
    loaders: dict[str, Callable[[bytes], object]] = {
        "pickle": lambda content: pickle.loads(content),
        "old pickle": lambda content: pickle.loads(content),
        "torch": lambda content: torch.load(io.BytesIO(content), weights_only=False),
        "legacy torch": lambda content: torch.load(io.BytesIO(content), weights_only=False),
        "npy": lambda content: np.load(io.BytesIO(content), allow_pickle=True),
        "yaml": yaml.unsafe_load,
        "yaml within": yaml.unsafe_load,
    }
    for form, load in loaders.items():
        load(planted(marker)[form])
        assert marker.exists(), form
        marker.rmdir()


def paths_of(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


LONG = [pytest.param(form, marks=pytest.mark.faults) for form in FORMS]


@pytest.mark.parametrize("form", ["natural", *LONG])
def test_every_file_of_a_run_folder(
    form: str, small_run: Path, tmp_path: Path, marker: Path, record_property: Callable[[str, object], None]
) -> None:
    """Each file in turn holds the payload, and every command that reads it is called.

    The short version plants what the file's own reader would fall for, the long one everything everywhere.
    """
    natural = {".json": "json", ".jsonl": "json", ".yaml": "yaml within", ".pt": "torch", ".safetensors": "pickle"}
    natural |= {".csv": "json", ".npz": "npy", ".txt": "json"}
    count = 0
    shutil.copytree(small_run, tmp_path / "r")
    run, image = tmp_path / "r", tmp_path / "image.png"
    Image.new("RGB", (8, 8)).save(image)
    names = [name for name in paths_of(run) if not name.endswith((".html", ".lock"))]  # written anew, and never read
    assert {"genotype.json", "config.yaml", "train/model/model.safetensors", "train/model/config.json"} <= {*names}
    for name in names:
        content = (run / name).read_bytes()
        (run / name).write_bytes(planted(marker)[natural[Path(name).suffix] if form == "natural" else form])
        for arguments in commands_on(run, image, name):
            status, _, err = call_cli(*arguments)
            assert status in (0, 2) and "Traceback" not in err, (name, arguments, err)
            assert not marker.exists(), (name, arguments)
            count += 1
        (run / name).write_bytes(content)
    record(record_property, "code in a file of a run", count)


def commands_on(run: Path, image: Path, name: str) -> list[list[object]]:
    """Return the commands that read a file of a run folder."""
    if "checkpoints" in name or name.endswith(".jsonl"):
        return [["derive", run, "--out", run.parent / "c.json"]] if "train" not in name else []
    if "model/" in name:
        exported = ["export", run, "--to", "hub", "--out", run.parent / "hub"]
        return [["predict", run, image], ["evaluate", run], ["cost", run / "train"], exported]
    if name.startswith("train/"):
        return [["evaluate", run], ["cost", run / "train"]]
    again = ["search", "--config", run / "config.yaml", "--run", run]
    return [["derive", run, "--out", run.parent / "c.json"], ["cost", run], ["train", "--cell", run], again]


@pytest.mark.parametrize("form", FORMS)
def test_checkpoints(form: str, tmp_path: Path, marker: Path) -> None:
    (tmp_path / "000000001.pt").write_bytes(planted(marker)[form])
    with suppress(UserError):
        assert load_checkpoint(tmp_path, print) is None
    assert not marker.exists()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pth", "model.bin", "open_clip_pytorch_model.bin"])
def test_pickles_beside_and_in_place_of_a_models_weights(
    form: str, name: str, small_run: Path, tmp_path: Path, marker: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(small_run / "train" / "model", folder)
    (folder / name).write_bytes(planted(marker)[form])
    load_model(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"holds no model\.safetensors"):
        load_model(folder)
    assert not marker.exists()


@pytest.mark.parametrize(
    "change",
    [
        {"model_args": {"checkpoint_path": "PICKLE"}},
        {"model_args": {"pretrained_cfg": {"file": "PICKLE"}}},
        {"model_args": {"pretrained_cfg_overlay": {"file": "PICKLE", "source": "file"}}},
        {"model_args": {"cache_dir": "PLACE"}},
        {"model_args": {"cell": "PICKLE"}},
        {"model_args": []},
        {"pretrained_cfg": {"file": "PICKLE", "source": "file"}},
        {"pretrained_cfg": {"url": "file://PICKLE", "source": "url", "custom_load": True}},
        {"pretrained_cfg": {"hf_hub_id": "someone/model", "hf_hub_filename": "PICKLE", "source": "hf-hub"}},
        {"architecture": "local-dir:PLACE"},
        {"architecture": "hf-hub:someone/model"},
        {"architecture": "../../x"},
    ],
    ids=str,
)
def test_a_models_description_chooses_no_file(
    change: dict[str, Any], small_run: Path, tmp_path: Path, marker: Path
) -> None:
    """Its weights come from the safetensors beside it, or it is refused; nothing is fetched, read or written else."""
    folder, place = tmp_path / "model", tmp_path / "place"
    shutil.copytree(small_run / "train" / "model", folder)
    pickled = tmp_path / "evil.pth"
    pickled.write_bytes(planted(marker)["torch"])
    text = json.dumps(change).replace("PICKLE", str(pickled)).replace("PLACE", str(place))
    config = json.loads((folder / "config.json").read_text())
    for key, value in json.loads(text).items():
        config[key] = {**config[key], **value} if isinstance(value, dict) else value
    (folder / "config.json").write_text(json.dumps(config))
    wanted = {name: tensor.clone() for name, tensor in load_model(small_run / "train" / "model").state_dict().items()}
    try:
        found = load_model(folder).state_dict()
        assert all(torch.equal(found[name], tensor) for name, tensor in wanted.items())
    except UserError as error:
        assert "\n" not in str(error)
    assert not marker.exists() and not place.exists()


def test_models_of_the_hub_are_safetensors_alone(
    small_run: Path, tmp_path: Path, marker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}
    shutil.copytree(small_run / "train" / "model", tmp_path / "hub")

    def fetch(repository: str, **options: Any) -> str:
        asked.update(options, repository=repository)
        return str(tmp_path / "hub")

    monkeypatch.setattr(folder_module, "snapshot_download", fetch)
    load_model("hf-hub:someone/model@v1")
    assert asked == {
        "repository": "someone/model",
        "revision": "v1",
        "allow_patterns": ["config.json", "model.safetensors"],
    }
    (tmp_path / "hub" / "model.safetensors").unlink()
    (tmp_path / "hub" / "pytorch_model.bin").write_bytes(planted(marker)["torch"])
    with pytest.raises(UserError, match=r"holds no model\.safetensors"):
        load_model("hf-hub:someone/model")
    assert not marker.exists()


@pytest.mark.parametrize("form", FORMS)
def test_genotypes_and_recipes(form: str, tmp_path: Path, marker: Path) -> None:
    loaders: dict[str, Callable[[str], object]] = {
        "cell.json": load_genotype,
        "recipe.yaml": lambda path: from_dict(read_recipe(path), path),
    }
    for name, load in loaders.items():
        (tmp_path / name).write_bytes(planted(marker)[form])
        with pytest.raises(UserError, match=name):
            load(str(tmp_path / name))
    assert not marker.exists()


@pytest.mark.parametrize("as_file", [True, False])
@pytest.mark.parametrize("option", ["--data", "--search", "--search.stages", "--model", "--train.augment", "--data+"])
def test_a_section_names_no_class(
    option: str, as_file: bool, tmp_path: Path, marker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parser would import the class, from the folder that is worked in if need be."""
    (tmp_path / "evil_module.py").write_text(f"open({str(marker)!r}, 'w')\nclass Evil: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    value = json.dumps({"class_path": "evil_module.Evil", "init_args": {}})
    if as_file:
        (tmp_path / "section.yaml").write_text(value)
        value = str(tmp_path / "section.yaml")
    for arguments in ([option, value], [f"{option}={value}"]):
        status, _, err = call_cli("search", *arguments, "--run", tmp_path / "r")
        assert status == 2 and option in err
    assert not marker.exists() and "evil_module" not in sys.modules


# --- data -------------------------------------------------------------------------------------------------------------


def data_of(name: str, path: Path, tmp_path: Path) -> object:
    return load_data(DataConfig(name=name, path=str(path), cache=str(tmp_path / "cache")), 8, seed=0)


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("cifar10", ["data_batch_1", "data_batch_2", "test_batch", "batches.meta"]),
        ("cifar100", ["train", "test", "meta"]),
    ],
)
@pytest.mark.parametrize("form", ["pickle", "old pickle", "torch"])
def test_the_pickles_of_cifar(name: str, files: list[str], form: str, tmp_path: Path, marker: Path) -> None:
    """They are opened only where their checksum is the published one's."""
    folder = tmp_path / "data" / {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}[name]
    folder.mkdir(parents=True)
    for file in files:
        (folder / file).write_bytes(planted(marker)[form])
    with pytest.raises(UserError, match=r"incomplete or damaged"):
        data_of(name, tmp_path / "data", tmp_path)
    assert not marker.exists()


@pytest.mark.parametrize("form", FORMS)
def test_the_files_of_fashion_mnist(form: str, tmp_path: Path, marker: Path) -> None:
    """Its reader still knows an older layout, of files that torch.load reads."""
    for folder, files in {
        "raw": ["train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte"],
        "processed": ["training.pt", "test.pt"],
    }.items():
        (tmp_path / "data" / "FashionMNIST" / folder).mkdir(parents=True)
        for file in files:
            (tmp_path / "data" / "FashionMNIST" / folder / file).write_bytes(planted(marker)[form])
    with pytest.raises(UserError, match=r"incomplete or damaged"):
        data_of("fashion_mnist", tmp_path / "data", tmp_path)
    assert not marker.exists()


@pytest.mark.parametrize("form", FORMS)
def test_parquet(form: str, tmp_path: Path, marker: Path) -> None:
    """In place of the file, of its images, and in a type of arrow's that older versions unpickled."""
    content = planted(marker)[form]
    image = io.BytesIO()
    Image.new("RGB", (8, 8)).save(image, "png")
    extension = {b"ARROW:extension:name": b"arrow.py_extension_type", b"ARROW:extension:metadata": content}
    tables = {
        "file": None,
        "images": pa.table({"image": [content] * 4, "label": [0, 0, 1, 1]}),
        "type": pa.table(
            {"image": [image.getvalue()] * 4, "label": [0, 0, 1, 1]},
            schema=pa.schema(
                [pa.field("image", pa.binary(), metadata=extension), pa.field("label", pa.int64())],
                metadata={b"huggingface": content},
            ),
        ),
    }
    for name, table in tables.items():
        folder = tmp_path / name
        folder.mkdir()
        for part in ("train", "test"):
            if table is None:
                (folder / f"{part}.parquet").write_bytes(content)
            else:
                pq.write_table(table, folder / f"{part}.parquet")
        try:
            data_of("parquet", folder, tmp_path)
            assert name == "type"
        except UserError as error:
            assert name != "type", error
        assert not marker.exists()


@pytest.mark.parametrize("form", FORMS)
def test_images_and_the_cache_of_them(form: str, tmp_path: Path, marker: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "set" / name).mkdir(parents=True)
        for i in range(5):
            Image.new("RGB", (8, 8), (i, i, i)).save(tmp_path / "set" / name / f"{i}.png")
    data_of("imagefolder", tmp_path / "set", tmp_path)
    (cached,) = (tmp_path / "cache").glob("imagefolder-*")
    for path in sorted(cached.iterdir()):
        path.unlink()  # not written over: it is mapped into memory
        path.write_bytes(planted(marker)[form])
        data_of("imagefolder", tmp_path / "set", tmp_path)
        assert not marker.exists(), path
    (tmp_path / "set" / "a" / "0.png").write_bytes(planted(marker)[form])
    with pytest.raises(UserError, match=r"0.png"):
        data_of("imagefolder", tmp_path / "set", tmp_path)
    assert not marker.exists()


# --- where is written -------------------------------------------------------------------------------------------------


def outside(small_run: Path, tmp_path: Path, **data: Any) -> tuple[Path, Path]:
    """Return a copy of a run whose configuration asks to write elsewhere, and that place."""
    run, place = tmp_path / "r", tmp_path / "elsewhere"
    shutil.copytree(small_run, run)
    for path in (run / "config.yaml", run / "train" / "config.yaml"):
        config = yaml.safe_load(path.read_text())
        config["data"] |= {key: str(place) if value == "PLACE" else value for key, value in data.items()}
        path.write_text(yaml.safe_dump(config))
    return run, place


def test_a_file_chooses_no_cache(small_run: Path, tmp_path: Path) -> None:
    run, place = outside(small_run, tmp_path, cache="PLACE")
    config = run / "config.yaml"
    for arguments in (["evaluate", run], ["train", "--cell", run], ["search", "--config", config, "--run", "r2"]):
        status, _, err = call_cli(*arguments)
        assert status == 2 and "files do not choose where is written" in err
        assert not place.exists()
    assert call_cli("evaluate", run, "--data.cache", place)[0] == 0 and place.exists()
    assert call_cli("evaluate", run)[0] == 0, "a folder that is a cache already may be one"


def test_a_file_fetches_nothing_into_a_folder(small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[object] = []
    monkeypatch.setattr("dasvit.data.sources._download", lambda *args: fetched.append(args))
    run, place = outside(small_run, tmp_path, name="cifar10", path="PLACE", download=True)
    for arguments in (
        ["evaluate", run],
        ["train", "--cell", run],
        ["train", "--model=vit", "--config", run / "config.yaml"],
    ):
        status, _, err = call_cli(*arguments)
        assert status == 2 and "--data.download true" in err
    assert fetched == [] and not place.exists()
    assert call_cli("evaluate", run, "--data.download", "true")[0] == 2 and len(fetched) == 1


@pytest.mark.parametrize(
    "name", ["../../../outside", "/tmp/outside", "..", "a/b", "\x00", "x" * 300, "\x1b[2J", "[/b]"]
)
def test_names_in_files_lead_nowhere(name: str, small_run: Path, tmp_path: Path) -> None:
    """Names of classes, architectures, commands and runs: wherever they stand, all that is written lies in the run."""
    shutil.copytree(small_run, tmp_path / "home" / "r")
    run = tmp_path / "home" / "r"
    image = tmp_path / "image.png"
    Image.new("RGB", (8, 8)).save(image)
    for path in run.rglob("*.json"):
        content = json.loads(path.read_text())
        if path.parent.name == "model":
            content["pretrained_cfg"]["label_names"] = [f"{name}{i}" for i in range(10)]
            content["dasvit"] = {"run": name}
        elif path.name in ("derivation.json", "environment.json", "result.json"):
            content |= {key: name for key, value in content.items() if isinstance(value, str) and key != "kind"}
        path.write_text(json.dumps(content))
    before = tree(tmp_path)
    for arguments in (
        ["predict", run, image],
        ["evaluate", run],
        ["derive", run],
        ["export", run, "--to", "hub"],
        ["cost", run],
        ["cost", run / "train"],
        ["train", "--cell", run],
    ):
        status, out, err = call_cli(*arguments)
        assert status in (0, 2) and "Traceback" not in err and "\x1b" not in out + err, err
    added = {path for path in tree(tmp_path) if path not in before}
    assert all(f"{path}/".startswith(("home/r/derived/", "home/r/train/")) for path in added)


def test_a_table_shows_names_as_they_stand() -> None:
    """Rich would take [/b] for markup that ends nothing, and pass escapes on to the terminal."""
    out = io.StringIO()
    Console(file=out, width=80).print(confusion_table([[1, 0], [0, 1]], ["[/b]", "\x1b[2J"]))
    Console(file=out, width=80).print(
        network_table([{"network": "[/c]", **dict.fromkeys([*COLUMNS, "majority", "macro_f1"], 1.0)}])
    )
    assert {"[/b]", "\\x1b[2J", "[/c]"} <= {*out.getvalue().split()}


COLUMNS = ("params", "macs", "top1", "top5")


def test_labels_are_shown_as_they_stand(small_run: Path, tmp_path: Path) -> None:
    """Whatever they hold, a terminal does not act upon it, and a table shows it."""
    shutil.copytree(small_run / "train" / "model", tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    config = json.loads(path.read_text())
    names = ["[red]", "[/nothing]", "\x1b[2J", "two\nlines", "\ud800", "ü", "", " ", "\u202e", "0"]
    config["pretrained_cfg"]["label_names"] = names
    path.write_text(json.dumps(config))
    Image.new("RGB", (8, 8)).save(tmp_path / "image.png")
    status, out, _ = call_cli("predict", tmp_path / "model", tmp_path / "image.png", "--top", 10)
    assert status == 0 and len(out.splitlines()) == 1 and "[/nothing]" in out and "\\x1b[2J" in out


# --- absurd sizes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"model": {"image_size": 10**9}}, "model.image_size must be at most"),
        ({"model": {"image_size": 8192, "patch_size": 1}}, r"67,108,864 of them, more than 65,536"),
        ({"model": {"width": 10**9}}, "model.width must be at most"),
        ({"model": {"layers": 10**9}}, "model.layers must be at most"),
        ({"space": {"ratios": [1e9]}}, "space.ratios must be at most"),
        ({"space": {"ratios": [1 + i / 100 for i in range(65)]}}, "the number of space.ratios must be at most"),
        ({"search": {"tokens": {"dim": 10**9}}}, "search.tokens.dim must be at most"),
        ({"runtime": {"workers": 10**6}}, "runtime.workers must be at most"),
        ({"runtime": {"seed": 2**32}}, "runtime.seed must be at most"),
        ({"train": {"augment": {"crop_padding": 10**6}}}, "train.augment.crop_padding must be at most"),
        ({"train": {"optim": {"lr": float("inf")}}}, "train.optim.lr must be a finite number"),
        ({"search": {"temperature": float("nan")}}, "search.temperature must be a finite number"),
        ({"model": {"width": None}}, "model.width is null"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_absurd_sizes_in_a_configuration(content: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        from_dict(content)


def unfolding() -> str:
    """Return nine lists, each of eight times the one before: 134 million values in a few words."""
    lists = ["&a [x, x, x, x, x, x, x, x]"]
    lists += [f"&{name} [{', '.join([f'*{before}'] * 8)}]" for before, name in zip("abcdefgh", "bcdefghi", strict=True)]
    return f"data: {{name: [{', '.join(lists)}]}}"


@pytest.mark.parametrize(
    "text",
    [
        unfolding(),
        "data: &a {name: *a}",
        "[" * 3000,
        "data: {limit: " + "9" * 5000 + "}",
        "data: {name: 2001-99-99}",
    ],
    ids=["unfolds", "holds itself", "deep", "long number", "no date"],
)
def test_yaml_that_is_a_trap(text: str, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(UserError, match=r"r\.yaml"):
        read_recipe(str(tmp_path / "r.yaml"))


@pytest.mark.parametrize(
    "change",
    [
        {"model_args": {"depth": 10**9}},
        {"model_args": {"depth": 300, "embed_dim": 512}},
        {"model_args": {"embed_dim": 10**6}},
        {"model_args": {"img_size": [10**6, 10**6]}},
        {"model_args": {"num_classes": 10**9}},
        {"pretrained_cfg": {"input_size": [3, 10**9, 10**9]}},
        {"pretrained_cfg": {"crop_pct": 1e-9}},
        {"pretrained_cfg": {"crop_pct": 0}},
        {"pretrained_cfg": {"crop_pct": float("nan")}},
        {"pretrained_cfg": {"std": [0, 0, 0]}},
        {"pretrained_cfg": {"mean": [0.5]}},
        {"pretrained_cfg": {"label_names": "abcdefghij"}},
        {"pretrained_cfg": {"label_names": ["one"]}},
        {"pretrained_cfg": {"label_names": [], "num_classes": 10**9}},
    ],
    ids=str,
)
def test_absurd_sizes_in_a_models_description(change: dict[str, Any], small_run: Path, tmp_path: Path) -> None:
    shutil.copytree(small_run / "train" / "model", tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    config = json.loads(path.read_text())
    for key, value in change.items():
        config[key] = {**config[key], **value}
    path.write_text(json.dumps(config))
    Image.new("RGB", (8, 8)).save(tmp_path / "image.png")
    status, out, err = call_cli("predict", tmp_path / "model", tmp_path / "image.png")
    assert status == 2 and out == "" and err.count("\n") == 1 and "config.json" in err


def test_a_network_that_the_memory_cannot_hold(tmp_path: Path) -> None:
    """Within every single limit, and yet 200 billion parameters."""
    sizes = [
        "--model.width=32768",
        "--model.layers=24",
        "--space.heads=[2]",
        "--data.limit=100",
        "--search.batch_size=16",
    ]
    for command in (["train", "--cell", "dasvit_cifar10"], ["train", "--model", "vit", "--model.heads=2"], ["search"]):
        status, _, err = call_cli(*command, "--config=digits", *sizes, "--run", tmp_path / "r")
        assert status == 2 and "GB" in err and not (tmp_path / "r").exists()
