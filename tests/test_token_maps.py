"""Token maps: what each layer keeps of a few images, recorded without a trace in the search, and shown."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dasvit.data.thumbnail import encode
from dasvit.report import write_report
from dasvit.report.run.reading import read_run
from dasvit.report.run.tokens import covered, flags, middle, token_section
from dasvit.search.token_maps import TokenMaps, bits, spread
from helpers import SMALL, call_cli, interrupt_after_an_epoch
from run_folders import write_search
from runs import newest


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "tokens.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("tokens") / "run"
    status, _, err = call_cli("search", *SMALL, "--run", run)
    assert status == 0, err
    return run


def test_the_last_map_is_what_the_last_weights_keep(searched: Path) -> None:
    """The first layer's scores, computed anew from the checkpoint and the pictures that the run folder holds."""
    content = json.loads((searched / "token_images.json").read_text())
    assert content["grid"] == 4 and [image["class"] for image in content["images"]] == ["0", "3", "6", "9"]
    pictures = [np.asarray(Image.open(io.BytesIO(base64.b64decode(i["data"])))) for i in content["images"]]
    x = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2) / 127.5 - 1
    state = newest(searched)["supernet"]
    patches = torch.conv2d(x, state["embed.patch_embed.proj.weight"], state["embed.patch_embed.proj.bias"], stride=2)
    patches = patches.flatten(2).mT
    tokens = torch.cat([state["embed.cls_token"].expand(4, -1, -1), patches], dim=1) + state["embed.pos_embed"]
    query, key = (tokens @ state[f"blocks.0.selector.{name}.weight"].T for name in ("query", "key"))
    scores = (query @ key.mT / query.shape[-1] ** 0.5).softmax(dim=-1).mean(dim=1)[:, 1:]
    found = lines(searched)
    assert [(line["stage"], line["epoch"], len(line["kept"])) for line in found] == [(1, 1, 1), (1, 2, 1)]
    for row, kept in zip(scores, found[-1]["kept"][0], strict=True):
        assert {i for i, flag in enumerate(flags(kept, 4)) if flag} == set(row.topk(8).indices.tolist())


def test_looking_leaves_no_trace(searched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TokenMaps, "look", lambda *_: {})
    assert call_cli("search", *SMALL, "--run", tmp_path)[0] == 0
    assert not (tmp_path / "tokens.jsonl").exists()
    assert (tmp_path / "architecture.jsonl").read_bytes() == (searched / "architecture.jsonl").read_bytes()


def test_cut_off_and_gone_on_no_epoch_stands_there_twice(
    searched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        interrupt_after_an_epoch(patched)
        assert call_cli("search", *SMALL, "--run", tmp_path / "run")[0] == 130
    assert len(lines(tmp_path / "run")) == 1
    assert call_cli("search", *SMALL, "--run", tmp_path / "run")[0] == 0
    assert (tmp_path / "run" / "tokens.jsonl").read_bytes() == (searched / "tokens.jsonl").read_bytes()


def test_without_selection_there_are_none(tmp_path: Path) -> None:
    assert call_cli("search", *SMALL, "--search.tokens.ratio=1", "--run", tmp_path)[0] == 0
    assert not (tmp_path / "tokens.jsonl").exists() and not (tmp_path / "token_images.json").exists()


def test_pieces() -> None:
    assert spread(np.array([5, 1, 0, 1, 9]), 10).tolist() == [2, 4], "classes 3 and 6 have no image"
    assert spread(np.array([1, 0, 0]), 2).tolist() == [1, 0]
    assert bits(torch.tensor([0, 1, 9]), 9) == "8080"
    large = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)
    small = encode(large)
    assert small["format"] == "jpeg" and len(small["data"]) < 20_000
    assert flags("8080", 3) == [True, *[False] * 7, True] and middle(4) == "0660"
    assert covered("8080", 3) == "M1 0h2v1h-2zM0 1h3v1h-3zM0 2h2v1h-2z"


def test_the_page_shows_them(tmp_path: Path) -> None:
    folder = write_search(tmp_path / "run")
    section = token_section(read_run(folder))
    assert section is not None
    assert (section["layers"], section["share"], section["middle"]) == (4, 50, 25)
    assert [frame["epoch"] for frame in section["frames"]] == [1, 2, 3, 4, 5]
    # Epoch 2 keeps rows 2 to 5, all of them in the middle by half their columns; three of them stood there before.
    assert section["table"]["rows"][1] == (2, ["50 %, 75 %", "50 %, 75 %", "–", "–"])
    assert section["table"]["rows"][3] == (4, ["38 %"] * 4), "a stage begins: nothing was before"
    text = write_report(folder).read_text()
    assert "Tokens that the layers keep" in text and "a &lt;dog&gt;, layer 4" in text and "a <dog>" not in text


@pytest.mark.parametrize(
    "images, kept",
    [
        ({"grid": 8, "images": [{"class": "x", "format": "png", "data": '"><script>'}]}, [["00" * 8]]),
        ({"grid": 10**9, "images": [{"class": "x", "format": "png", "data": "AAAA"}]}, [["00" * 8]]),
        ({"grid": 8, "images": [{"class": "x", "format": "png", "data": "AAAA"}]}, [["0g" * 8]]),
        ({"grid": 8, "images": [{"class": "x", "format": "png", "data": "AAAA"}]}, [["00"]]),
        ({"grid": 8, "images": [{"class": "x", "format": "png", "data": "AAAA"}]}, {"0": "00"}),
        ({"grid": 8, "images": "none"}, [[7]]),
    ],
)
def test_files_that_are_not_as_they_should_be(images: Any, kept: Any, tmp_path: Path) -> None:
    folder = write_search(tmp_path / "run", (1,))
    (folder / "token_images.json").write_text(json.dumps(images))
    (folder / "tokens.jsonl").write_text(json.dumps({"stage": 1, "epoch": 1, "kept": kept}))
    assert token_section(read_run(folder)) is None
    assert "<h2" in write_report(folder).read_text()
