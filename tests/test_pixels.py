"""Pixels are what the picture shows: oblong images, and grey levels of more than 8 bits, in every command alike."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import timm
import torch
from numpy.typing import NDArray
from PIL import Image
from timm.data.config import resolve_data_config
from timm.data.transforms_factory import create_transform

import dasvit
from dasvit.config import DataConfig
from dasvit.data import Data, Preprocess, cache, load_data, predict_transform, split_indices
from dasvit.data.decode import decode, grey_levels
from dasvit.data.image_set import HeldPixels, ImageSet
from dasvit.data.mirrored import mirrored_classes
from dasvit.data.view import CROP_MODES, Fit, View
from dasvit.errors import UserError
from dasvit.training.classifier import read_input
from helpers import call_cli

pytestmark = pytest.mark.fault("pixels that are not what the picture shows")

SIDE = 32
Levels = NDArray[Any]


def stripes(number: int, rising: bool) -> Levels:
    """Return stripes of one of two directions, at a phase of their own, as floats [32, 32] of 0 to 1."""
    rows, columns = np.mgrid[0:32, 0:32]
    phase = np.random.default_rng(number).uniform(0, 6)
    along = rows + columns if rising else rows - columns
    levels: Levels = 0.5 + 0.5 * np.sin(along / 2 + phase)
    return levels


def write(folder: Path, form: Callable[[Levels], Levels], ending: str = "png", images: int = 6) -> Path:
    for part in ("train", "val"):
        for name in ("falling", "rising"):
            place = folder / part / name
            place.mkdir(parents=True)
            for i in range(images):
                number = 1000 * (part == "val") + i
                Image.fromarray(form(stripes(number, name == "rising"))).save(place / f"{i}.{ending}")
    return folder


def open_folder(folder: Path, **options: Any) -> Data:
    return load_data(DataConfig(name="imagefolder", path=str(folder), **options), SIDE, seed=0)


def pixels(data: Data) -> Levels:
    return np.concatenate([data.train.images[np.arange(len(data.train))], data.test.images[np.arange(len(data.test))]])


def to_12_bits(levels: Levels) -> Levels:
    found: Levels = np.rint(4095 * levels).astype(np.uint16)
    return found


FORMS: dict[str, tuple[Callable[[Levels], Levels], str]] = {
    "12 bits in a png of 16": (to_12_bits, "png"),
    "12 bits in a tiff of 16": (to_12_bits, "tif"),
    "32 bits": (lambda levels: np.rint(4095 * levels).astype(np.int32), "tif"),
    "signed": (lambda levels: np.rint(2000 * levels - 1000).astype(np.int32), "tif"),
    "floats to 4": (lambda levels: (4 * levels).astype(np.float32), "tif"),
    "floats to 0.01": (lambda levels: (levels / 100).astype(np.float32), "tif"),
}


@pytest.mark.parametrize("form", FORMS)
def test_levels_that_are_used_become_black_to_white(form: str, tmp_path: Path) -> None:
    make, ending = FORMS[form]
    data = open_folder(write(tmp_path / "deep", make, ending))
    plain = open_folder(write(tmp_path / "plain", lambda levels: np.rint(255 * levels).astype(np.uint8)))
    assert np.abs(pixels(data).astype(int) - pixels(plain)).max() <= 1
    assert any(line.startswith("window: ") for line in data.pixels()) and not any(
        line.startswith("window: ") for line in plain.pixels()
    )


def png_of_16_bits(colours: Levels) -> bytes:
    """Return a PNG of 16 bits a channel, which PIL does not write: [h, w, 2 to 4], alpha last of 2 or 4."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width, channels = colours.shape
    kind = {2: 4, 3: 2, 4: 6}[channels]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in colours)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff_of_16_bits(colours: Levels, order: str) -> bytes:
    """Return an uncompressed TIFF of 16 bits a colour in a byte order, < or >."""
    height, width, _ = colours.shape
    tags = [(256, 3, 1, width), (257, 3, 1, height), (258, 3, 3, 8), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 1, 14)]
    tags += [(277, 3, 1, 3), (278, 3, 1, height), (279, 4, 1, colours.size * 2)]
    entries = b"".join(
        struct.pack(f"{order}HHI", *tag[:3])
        + (struct.pack(f"{order}HH", tag[3], 0) if tag[1:3] == (3, 1) else struct.pack(f"{order}I", tag[3]))
        for tag in tags
    )
    start = 14 + colours.size * 2
    head = (
        (b"II" if order == "<" else b"MM")
        + struct.pack(f"{order}HI", 42, start)
        + struct.pack(f"{order}HHH", 16, 16, 16)
    )
    return head + colours.astype(f"{order}u2").tobytes() + struct.pack(f"{order}H", len(tags)) + entries + b"\0" * 4


def opaque(colours: Levels) -> Levels:
    """Return colours with a channel of opacity, all of it."""
    return np.concatenate([colours, np.full_like(colours[..., :1], 65535)], axis=2)


DEEP_COLOURS: dict[str, tuple[str, Callable[[Levels], bytes]]] = {
    "png": ("png", png_of_16_bits),
    "png with opacity": ("png", lambda colours: png_of_16_bits(opaque(colours))),
    "png of grey with opacity": ("png", lambda colours: png_of_16_bits(opaque(colours[..., :1]))),
    "tiff": ("tif", lambda colours: tiff_of_16_bits(colours, "<")),
    "tiff of the other byte order": ("tif", lambda colours: tiff_of_16_bits(colours, ">")),
}


@pytest.mark.parametrize("form", DEEP_COLOURS)
@pytest.mark.parametrize("top", [4095, 65535])
def test_colours_of_16_bits(top: int, form: str, tmp_path: Path) -> None:
    ending, encode = DEEP_COLOURS[form]
    folder = write(tmp_path / "set", lambda levels: np.rint(255 * levels).astype(np.uint8))
    plain = pixels(open_folder(folder, cache=str(tmp_path / "plain")))
    for path in folder.rglob("*.png"):
        levels = stripes(int(path.stem) + 1000 * (path.parts[-3] == "val"), path.parent.name == "rising")
        path.unlink()
        path.with_suffix(f".{ending}").write_bytes(encode(np.repeat(np.rint(top * levels)[..., None], 3, axis=2)))
    for on_error in ("stop", "skip"):
        data = open_folder(folder, on_error=on_error)
        assert (data.view.window == "full") == (top == 65535)
        assert np.abs(pixels(data).astype(int) - plain).max() <= 1
    assert open_folder(folder, window="full").train.images[np.array([0])].max() == top // 256


@pytest.mark.parametrize("channels", [1, 3])
def test_transparency_of_16_bits_is_laid_over_white(channels: int) -> None:
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 4096, (9, 7, channels)).astype(np.uint16)
    alpha = rng.integers(0, 65536, (9, 7, 1)).astype(np.uint16)
    alpha[0] = 0
    encoded = png_of_16_bits(np.concatenate([colours, alpha], axis=2))
    seen = np.asarray(decode(encoded, "x", window=(0, 4095))).astype(float)
    share = alpha / 65535
    expected = np.rint(colours * (255 / 4095)) * share + 255 * (1 - share)
    assert np.abs(seen - expected).max() <= 0.51 and (seen[0] == 255).all()
    levels = grey_levels(encoded, "x")
    assert levels is not None and set(levels.ravel()) == set(colours[alpha[..., 0] > 0].ravel())
    plain = np.asarray(decode(encoded, "x")).astype(float)  # the type's range: as PIL reads it
    assert np.abs(plain - ((colours >> 8) * share + 255 * (1 - share))).max() <= 2


@pytest.mark.parametrize("top", [65535, 40000])
def test_images_that_use_most_of_their_range_are_read_as_ever(top: int, tmp_path: Path) -> None:
    data = open_folder(write(tmp_path / "set", lambda levels: np.rint(top * levels).astype(np.uint16)))
    expected = np.rint(np.rint(top * stripes(0, False)) * (255 / 65535)).astype(np.uint8)
    assert data.view.window == "full" and np.array_equal(data.train.images[np.array([0])][0, :, :, 0], expected)


def test_a_dead_pixel_does_not_widen_the_window(tmp_path: Path) -> None:
    def form(levels: Levels) -> Levels:
        found = to_12_bits(levels)
        found[3, 4] = 65535
        return found

    window = open_folder(write(tmp_path / "set", form)).view.window
    assert not isinstance(window, str) and 0 <= window[0] < 50 and 4000 < window[1] < 4096


def test_a_window_that_is_given_counts(tmp_path: Path) -> None:
    folder = write(tmp_path / "set", to_12_bits)
    data = open_folder(folder, window="1000,3000")
    expected = np.clip(np.rint((np.rint(4095 * stripes(0, False)) - 1000) * (255 / 2000)), 0, 255)
    assert np.array_equal(data.train.images[np.array([0])][0, :, :, 0], expected.astype(np.uint8))
    assert pixels(open_folder(folder, window="full")).max() == 16
    assert "use the levels 0 to 16" in " ".join(open_folder(folder, window="full").understood.remarks)


@pytest.mark.parametrize("window", ["4095,0", "12", "a,b", "0,inf", "0,nan", ""])
def test_a_window_that_is_none_is_refused(window: str, tmp_path: Path) -> None:
    status, _, err = call_cli("train", "--model=vit", f"--data.path={tmp_path}", f"--data.window={window}")
    assert status == 2 and "data.window" in err and "0,4095" in err


def test_the_window_is_measured_where_images_are_decoded_as_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(tmp_path / "set", to_12_bits)
    expected = pixels(open_folder(folder, cache=str(tmp_path / "one")))
    monkeypatch.setattr(cache, "LARGEST", 1)
    for options in ({"on_error": "stop"}, {"on_error": "skip"}):
        assert np.array_equal(
            pixels(open_folder(folder, cache=str(tmp_path / options["on_error"]), **options)), expected
        )


def test_caches_of_8_bits_stay_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, kept = (
        write(tmp_path / "set", lambda levels: np.rint(255 * levels).astype(np.uint8)),
        str(tmp_path / "cache"),
    )
    before = open_folder(folder, cache=kept)
    [meta] = Path(kept).glob("imagefolder-*/meta.json")
    content = json.loads(meta.read_text())
    del content["oblong"], content["deep"], content["plan"]["view"]
    meta.write_text(json.dumps(content))
    monkeypatch.setattr(cache, "_build", lambda *args: pytest.fail("the images were decoded anew"))
    for window in ("auto", "full", "0,4095", "auto"):
        after = open_folder(folder, cache=kept, window=window)
        assert after.fingerprint == before.fingerprint and np.array_equal(pixels(after), pixels(before))


def test_caches_of_more_bits_are_made_anew(tmp_path: Path) -> None:
    folder, kept = write(tmp_path / "set", to_12_bits), str(tmp_path / "cache")
    expected = pixels(open_folder(folder, cache=kept))
    [meta] = Path(kept).glob("imagefolder-*/meta.json")
    content = json.loads(meta.read_text())
    del content["oblong"], content["deep"], content["plan"]["view"]
    meta.write_text(json.dumps(content))
    for name in ("train", "test"):
        images = meta.parent / f"{name}_images.npy"
        np.save(images, np.zeros_like(np.load(images)))
    assert np.array_equal(pixels(open_folder(folder, cache=kept)), expected)


# --- fit --------------------------------------------------------------------------------------------------------------


def scratched(folder: Path, images: int = 20) -> Path:
    """Write grey images of 96 × 32 pixels, half of them with a bright line at their left end."""
    generator = np.random.default_rng(0)
    for part in ("train", "val"):
        for name in ("good", "scratched"):
            (folder / part / name).mkdir(parents=True)
            for i in range(images):
                levels = generator.integers(90, 110, size=(32, 96, 3), dtype=np.uint8)
                if name == "scratched":
                    levels[:, 2:8] = 250
                Image.fromarray(levels).save(folder / part / name / f"{i}.png")
    return folder


@pytest.mark.parametrize("fit", ["crop", "pad", "squash"])
def test_what_is_at_the_ends_is_seen_unless_it_is_cropped(fit: str, tmp_path: Path) -> None:
    data = open_folder(scratched(tmp_path / "set", 3), fit=fit)
    bright = [int((data.test.images[np.array([row])] > 180).sum()) > 0 for row in range(6)]
    assert bright == [False] * 3 + [fit != "crop"] * 3
    assert data.oblong == 1.0 and [line for line in data.pixels() if line.startswith(f"fit: {fit}") and "100 %" in line]
    assert data.test.size == (37 if fit == "crop" else SIDE) and data.crop_pct == (0.875 if fit == "crop" else 1.0)


def test_each_fit_is_cached_by_itself(tmp_path: Path) -> None:
    folder = scratched(tmp_path / "set", 2)
    names = {open_folder(folder, fit=fit).fingerprint for fit in ("crop", "pad", "squash")}
    assert len(names) == 3
    assert open_folder(folder).fingerprint in names


@pytest.mark.parametrize("size", [(96, 32), (30, 75), (50, 50), (20, 20)])
@pytest.mark.parametrize("fit", ["pad", "squash"])
def test_timm_and_prediction_see_what_training_sees(fit: Fit, size: tuple[int, int], tmp_path: Path) -> None:
    small = np.random.default_rng(0).integers(256, size=(3, 3, 3), dtype=np.uint8)
    image = Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)
    for name in ("a", "b"):
        (tmp_path / "train" / name).mkdir(parents=True)
        for i in range(4):
            image.save(tmp_path / "train" / name / f"{i}.png")
    data = open_folder(tmp_path, fit=fit)
    preprocess, enlarge = Preprocess(SIDE).eval(), "bilinear" if data.enlarged else "bicubic"
    kept = torch.from_numpy(data.test.images[np.array([0])]).permute(0, 3, 1, 2)
    predicted = preprocess(predict_transform(SIDE, data.crop_pct, data.view, enlarge)(image)[None])
    assert float((predicted - preprocess(kept)).abs().max()) <= 1.01 * 2 / 255
    cfg = {"crop_mode": CROP_MODES[fit], "crop_pct": 1.0, "interpolation": enlarge, "mean": [0.5] * 3, "std": [0.5] * 3}
    theirs = create_transform(**resolve_data_config({**cfg, "input_size": (3, SIDE, SIDE)}))(image)
    assert float((torch.as_tensor(theirs) - predicted[0]).abs().max()) <= 0.02


# --- the same everywhere ----------------------------------------------------------------------------------------------

TINY = (
    "--config=folder-small",
    "--model.image_size=32",
    "--model.width=32",
    "--model.layers=2",
    "--train.epochs=12",
    "--train.batch_size=10",
    "--train.eval_every=12",
    '--train.augment={"crop_scale":1.0,"flip":0.0}',
    "--train.optim.warmup_epochs=1",
    "--runtime.device=cpu",
    "--runtime.precision=float32",
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A training on oblong images of 12 bits, whose classes differ at their left ends alone."""
    root = tmp_path_factory.mktemp("pixels")
    scratched(root / "set", 20)
    for path in (root / "set").rglob("*.png"):
        Image.fromarray(np.asarray(Image.open(path).convert("L")).astype(np.uint16) * 16).save(path)
    status, out, err = call_cli(
        "train", "--model=vit", *TINY, f"--data.path={root / 'set'}", "--data.fit=squash", f"--run={root / 'run'}"
    )
    assert status == 0, err
    return SimpleNamespace(set=root / "set", run=root / "run", said=out + err)


def test_the_start_and_the_run_folder_say_it(trained: SimpleNamespace) -> None:
    assert "fit: squash, all of each image; 100 % of the images are longer than 1.5 : 1" in trained.said
    assert "window: grey levels" in trained.said
    noted = json.loads((trained.run / "data.json").read_text())
    assert noted["fit"] == "squash" and noted["oblong"] == 1.0 and noted["window"] == "1440,4000"


def test_the_model_and_its_exports_know_fit_and_window(trained: SimpleNamespace) -> None:
    described = read_input(trained.run / "model")
    config = json.loads((trained.run / "model" / "config.json").read_text())
    assert config["pretrained_cfg"]["crop_mode"] == "squash" and described.view.fit == "squash"
    assert config["dasvit"]["window"] == list(described.view.window)
    assert call_cli("export", trained.run, "--to", "onnx")[0] == 0
    assert call_cli("export", trained.run, "--to", "hub")[0] == 0
    import onnx

    model = onnx.load(trained.run / "export" / "model.onnx", load_external_data=False)
    facts = {entry.key: entry.value for entry in model.metadata_props}
    assert facts["crop_mode"] == "squash" and json.loads(facts["window"]) == config["dasvit"]["window"]
    card = (trained.run / "export" / "hub" / "README.md").read_text()
    assert "their sides scaled apart (crop_mode squash)" in card and "fit: squash" in card and "level 1440" in card
    assert timm.create_model(f"local-dir:{trained.run / 'export' / 'hub'}", pretrained=True) is not None


def test_prediction_and_evaluation_agree_with_training(trained: SimpleNamespace) -> None:
    result = json.loads((trained.run / "result.json").read_text())
    assert result["top1"] == 100.0
    model = dasvit.TrainedModel(trained.run)
    paths = sorted(map(str, (trained.set / "val").rglob("*.png")))
    names = [row["predictions"][0]["label"] for row in model.predict(paths)]
    assert names == [Path(path).parent.name for path in paths]
    pictures = [Image.open(path) for path in paths]
    assert [row["predictions"][0] for row in model.predict(pictures)] == [
        row["predictions"][0] for row in model.predict(paths)
    ]
    for data in (None, str(trained.set)):
        evaluated = model.evaluate(data, quiet=True).evaluation
        assert evaluated.top1 == result["top1"] and evaluated.loss == pytest.approx(result["loss"], rel=1e-5)


def test_a_run_that_began_before_windows_goes_on_without(trained: SimpleNamespace, tmp_path: Path) -> None:
    arguments = ["train", "--model=vit", *TINY, "--train.epochs=1", f"--data.path={trained.set}", f"--run={tmp_path}"]
    assert call_cli(*arguments, "--data.window=full")[0] == 0
    kept = (tmp_path / "config.yaml").read_text()
    (tmp_path / "config.yaml").write_text(kept.replace("window: full, ", "").replace(", window: full", ""))
    assert "window" not in (tmp_path / "config.yaml").read_text()
    before = json.loads((tmp_path / "environment.json").read_text())["data_fingerprint"]
    status, _, err = call_cli(*arguments)
    assert status == 0 and json.loads((tmp_path / "environment.json").read_text())["data_fingerprint"] == before, err
    assert read_input(tmp_path / "model").view == View()


# --- flips ------------------------------------------------------------------------------------------------------------


def striped(number: int, rising: bool) -> Levels:
    noise = np.random.default_rng(number).normal(0, 0.1, size=(32, 32))
    levels: Levels = np.clip(40 + 150 * (stripes(number, rising) + noise), 0, 255).astype(np.uint8)
    return np.repeat(levels[..., None], 3, axis=2)


def image_set(images: Sequence[Levels], labels: Sequence[int]) -> ImageSet:
    return ImageSet(HeldPixels(np.stack(images)), np.array(labels, dtype=np.int64))


def test_classes_that_are_mirror_images_are_found() -> None:
    noise = np.random.default_rng(0).integers(256, size=(30, 32, 32, 3), dtype=np.uint8)
    pair = [striped(i, rising) for rising in (False, True) for i in range(30)]
    labels = [0] * 30 + [2] * 30 + [1] * 30
    assert mirrored_classes(image_set([*pair, *noise], labels), 3) == [(0, 2)]
    half = [image[:, ::-1] if i % 2 else image for i, image in enumerate(pair)]  # both classes show both directions
    assert mirrored_classes(image_set([*half, *noise], labels), 3) == []
    assert mirrored_classes(image_set(pair[:19] + pair[30:49], [0] * 19 + [1] * 19), 2) == []  # too few


def test_the_test_for_flips_leaves_the_random_generators_alone() -> None:
    images = image_set([striped(i, i % 2 == 0) for i in range(60)], [i % 2 for i in range(60)])
    states = torch.get_rng_state(), np.random.get_state(legacy=False)
    assert mirrored_classes(images, 2) == mirrored_classes(images, 2) == [(0, 1)]
    assert torch.equal(torch.get_rng_state(), states[0])
    assert str(np.random.get_state(legacy=False)) == str(states[1])


@pytest.mark.parametrize("flip", [0.0, 0.5])
def test_flips_are_said_at_the_start_and_what_they_erase(flip: float, tmp_path: Path) -> None:
    folder = write(tmp_path / "set", lambda levels: np.rint(255 * levels).astype(np.uint8), images=25)
    status, out, err = call_cli(
        "train",
        "--model=vit",
        *TINY,
        "--train.epochs=1",
        f"--train.augment.flip={flip}",
        f"--data.path={folder}",
        f"--run={tmp_path / 'run'}",
    )
    assert status == 0, err
    assert ("train.augment.flip 0.5; 0: never" in out + err) == bool(flip)
    [*remarks] = json.loads((tmp_path / "run" / "data.json").read_text())["remarks"]
    assert any("images of falling and rising look like one another" in remark for remark in remarks) == bool(flip)


def test_data_names_classes_that_flips_confuse(tmp_path: Path) -> None:
    folder = write(tmp_path / "set", lambda levels: np.rint(255 * levels).astype(np.uint8), images=25)
    status, out, err = call_cli("data", folder)
    assert status == 0 and "images of falling and rising look like one another" in out, out + err
    assert "--search.augment.flip 0 --train.augment.flip 0" in out


# --- groups -----------------------------------------------------------------------------------------------------------


def patients(folder: Path, part: str = "", first: int = 0) -> Path:
    """Write images of two classes and twelve patients, four of each patient."""
    for name in ("ill", "well"):
        place = folder / part / name
        place.mkdir(parents=True)
        for number in range(24):
            patient = first + number // 4 + 6 * (name == "ill")
            pixels = np.random.default_rng([number, name == "ill", first]).integers(256, size=(8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(place / f"patient_{patient}_{number}.png")
    return folder


def patient_of(name: str) -> str:
    return Path(name).name.split("_")[1]


def test_groups_are_held_out_whole(tmp_path: Path) -> None:
    folder = patients(tmp_path / "set")
    data = open_folder(folder, groups=r"patient_(\d+)_", val_fraction=0.3)
    held_out = {patient_of(name) for name in data.held_out}
    everybody = {patient_of(str(path)) for path in folder.rglob("*.png")}
    assert len(data.held_out) == len(data.test) == 4 * len(held_out) and 0 < len(held_out) < len(everybody)
    assert set(data.test.labels.tolist()) == {0, 1} and len(data.train) + len(data.test) == 48
    plain = open_folder(folder, val_fraction=0.3)
    assert len({patient_of(name) for name in plain.held_out}) > len(plain.held_out) / 4
    again = open_folder(folder, groups=r"patient_(\d+)_", val_fraction=0.3)  # from the cache
    assert again.held_out == data.held_out and again.train.groups is not None
    lower, upper = split_indices(again.train.labels, 0.5, 0, groups=again.train.groups)
    assert not set(again.train.groups[lower]) & set(again.train.groups[upper])


def test_a_run_keeps_what_was_held_out_and_evaluation_finds_it_again(tmp_path: Path) -> None:
    folder, run = patients(tmp_path / "set"), tmp_path / "run"
    options = ["--train.epochs=1", f"--data.path={folder}", "--data.groups=patient_[0-9]+"]
    assert call_cli("train", "--model=vit", *TINY, *options, f"--run={run}")[0] == 0
    names = (run / "held_out.txt").read_text().splitlines()
    result = json.loads((run / "result.json").read_text())
    assert len(names) == result["images"] and all(Path(name).is_file() for name in names)
    evaluated = dasvit.TrainedModel(run).evaluate(str(folder), quiet=True).evaluation
    assert evaluated.loss == pytest.approx(result["loss"], rel=1e-5)


def test_groups_across_given_splits_are_said(tmp_path: Path) -> None:
    folder = patients(patients(tmp_path / "set", "train"), "test", first=10)
    remarks = " ".join(open_folder(folder, groups="patient_[0-9]+").understood.remarks)
    assert "2 groups stand in both train and test (patient_10, patient_11; 8 test images)" in remarks


def test_a_column_of_groups(tmp_path: Path) -> None:
    folder = patients(tmp_path / "images")
    paths = sorted(folder.rglob("*.png"))
    labels = [int(path.parent.name == "well") for path in paths]
    table = {"image": [{"bytes": path.read_bytes()} for path in paths], "label": labels}
    (tmp_path / "set").mkdir()
    groups = [int(patient_of(str(path))) for path in paths]
    pq.write_table(pa.table({**table, "patient": groups}), tmp_path / "set" / "train.parquet")
    data = load_data(DataConfig(name="parquet", path=str(tmp_path / "set"), group_column="patient"), 8, seed=0)
    rows = [int(name.rpartition(" ")[2]) for name in data.held_out]
    held_out = {groups[row] for row in rows}
    assert len(rows) == len(data.test) and all((row in rows) == (groups[row] in held_out) for row in range(48))


@pytest.mark.parametrize(
    ("options", "said"),
    [({"groups": "("}, "no regular expression"), ({"groups": "nobody"}, "matches no path"), ({"groups": "i|w"}, "few")],
)
def test_groups_that_cannot_be_held_out(options: dict[str, str], said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        open_folder(patients(tmp_path / "set"), **options)


# --- dasvit data ------------------------------------------------------------------------------------------------------


def test_the_screen_and_the_page_of_a_data_set(tmp_path: Path) -> None:
    folder = write(tmp_path / "set", to_12_bits)
    for part in ("train", "val"):
        for i in range(6):
            Image.fromarray(to_12_bits(np.tile(stripes(i, True), (1, 2)))).save(
                folder / part / "rising" / f"wide{i}.png"
            )
    page = tmp_path / "page.html"
    status, out, err = call_cli("data", folder, "--report", page, "--model.image_size", 64)
    assert status == 0, err
    assert "33 % of the images are longer than 1.5 : 1" in out and "window: grey levels 0 to 4,09" in out
    assert "modes: I;16, 16 bit (36)" in out and "disk: 1 MB at model.image_size 64 (decoded)" in out
    text = page.read_text()
    assert text.count("<img ") == 4 * 6 and "without window" in text and 'src="http' not in text
    found = json.loads(call_cli("data", folder, "--json")[1])
    assert found["oblong"] == pytest.approx(1 / 3) and found["held_out"] == [] and found["window"].startswith("0,")
    (tmp_path / "mine.html").write_text("mine")
    status, _, err = call_cli("data", folder, "--report", tmp_path / "mine.html")
    assert status == 2 and "no page of dasvit's" in err


def test_what_would_be_held_out_is_what_a_run_holds_out(tmp_path: Path) -> None:
    folder = patients(tmp_path / "set")
    options = [f"--data.path={folder}", "--data.groups=patient_[0-9]+", "--train.epochs=1"]
    names = tmp_path / "names.txt"
    status, out, err = call_cli("data", folder, "--held-out", names, "--data.groups=patient_[0-9]+")
    assert status == 0 and f"held out: {len(names.read_text().splitlines())} images" in out, err
    assert call_cli("train", "--model=vit", *TINY, *options, f"--run={tmp_path / 'run'}")[0] == 0
    assert (tmp_path / "run" / "held_out.txt").read_text() == names.read_text()
