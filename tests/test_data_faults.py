"""What goes wrong with images and with the processes that load them, provoked."""

from __future__ import annotations

import os
import signal
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dasvit.config import AugmentConfig, DataConfig
from dasvit.data import Data, Loader, cache, folders, load, load_data, train_transform
from dasvit.data import loader as loader_module
from dasvit.data.image_set import HeldPixels
from dasvit.errors import UserError

SIDE = 8


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of eight training and four test images."""
    for part, images in (("train", 4), ("val", 2)):
        for label, name in enumerate(("cat", "dog")):
            (tmp_path / "set" / part / name).mkdir(parents=True)
            for i in range(images):
                draw(10 * label + i).save(tmp_path / "set" / part / name / f"{i}.png")
    return tmp_path / "set"


def draw(number: int) -> Image.Image:
    return Image.fromarray(np.full((SIDE, SIDE, 3), number, np.uint8))


def config_of(folder: Path, **options: Any) -> DataConfig:
    return DataConfig(name="imagefolder", path=str(folder), cache=str(folder.parent / "cache"), **options)


def loaded(folder: Path, **options: Any) -> Data:
    return load_data(config_of(folder, **options), SIDE, seed=0)


def first_pixels(data: Data) -> list[int]:
    return [int(data.train.image(i).getpixel((0, 0))[0]) for i in range(len(data.train))]  # type: ignore[index]


# --- processes that load images --------------------------------------------------------------------------------------


def loader_of(folder: Path, workers: int, batches: int = 12) -> Loader:
    images = loaded(folder).train
    return Loader(
        images,
        np.arange(2 * batches, dtype=np.int64) % len(images),
        batch_size=2,
        transform=train_transform(AugmentConfig(crop_padding=2, flip=0.5), SIDE, SIDE),
        seed=3,
        shuffle=True,
        drop_last=True,
        workers=workers,
    )


def workers_of(loader: Loader) -> list[Any]:
    return list(vars(vars(loader._pool)["_iterator"])["_workers"])


def killing(loader: Loader, at: set[int]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Walk through an epoch, and kill a worker before the batches of these numbers."""
    for number, batch in enumerate(loader):
        if number in at:
            os.kill(workers_of(loader)[number % loader.workers].pid, signal.SIGKILL)
        yield batch


@pytest.fixture
def quick_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch looks whether its workers live every five seconds."""
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.1)


@pytest.mark.fault("loader worker killed")
@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on a machine of one core
@pytest.mark.usefixtures("quick_watch")
def test_killed_workers_are_started_anew_and_change_nothing(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Two are killed within an epoch, one between two epochs; every batch is what it would have been."""
    plain, attacked = loader_of(folder, 0), loader_of(folder, 2)
    for epoch, at in ((0, {1, 5, 11}), (1, set[int]())):
        plain.set_epoch(epoch)
        attacked.set_epoch(epoch)
        for wanted, found in zip(plain, killing(attacked, at), strict=True):
            assert torch.equal(wanted[0], found[0]) and torch.equal(wanted[1], found[1])
    assert caplog.text.count("started anew") == 3


class Deadly:
    """A transform whose process dies of it."""

    def __call__(self, images: Any, numbers: Any) -> Any:
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.fault("loader worker killed")
@pytest.mark.usefixtures("quick_watch")
def test_workers_that_always_die_end_the_run_in_a_sentence(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader_module, "RESTARTS", 0)
    loader = loader_of(folder, 1)
    object.__setattr__(loader.batches, "transform", Deadly())
    with pytest.raises(UserError, match=r"die at the same batch again and again .* lower runtime.workers"):
        next(iter(loader))


class Faulty:
    """A transform with a mistake of its own."""

    def __call__(self, images: Any, numbers: Any) -> Any:
        raise RuntimeError("our own mistake")


def test_an_error_within_a_worker_is_no_dead_worker(folder: Path) -> None:
    loader = loader_of(folder, 1)
    object.__setattr__(loader.batches, "transform", Faulty())
    with pytest.raises(RuntimeError, match="our own mistake"):
        next(iter(loader))


# --- files ------------------------------------------------------------------------------------------------------------


def while_reading(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Act once, after the images were listed and before they are read."""
    prepare = load.prepare
    acts = [act]

    def acting(*args: Any) -> Any:
        prepared = prepare(*args)
        while acts:
            acts.pop()()
        return prepared

    monkeypatch.setattr(load, "prepare", acting)


@pytest.mark.fault("data file changes or goes while it is read")
@pytest.mark.parametrize("on_error", ["stop", "skip"])
@pytest.mark.parametrize("cached", [True, False])
def test_a_file_that_changes_while_it_is_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch, on_error: str, cached: bool
) -> None:
    """What was read is not kept under the name of what was listed; the same command again reads it anew."""
    if not cached:
        (folder.parent / "cache").write_text("in the way")
    while_reading(monkeypatch, lambda: draw(77).resize((9, 9)).save(folder / "train" / "cat" / "0.png"))
    with pytest.raises(UserError, match="changed while they were read: run the same command again"):
        loaded(folder, on_error=on_error)
    assert not cached or [path.name for path in (folder.parent / "cache").iterdir()] == ["CACHEDIR.TAG"]
    draw(77).save(folder / "train" / "cat" / "0.png")
    assert first_pixels(loaded(folder, on_error=on_error)) == [77, 1, 2, 3, 10, 11, 12, 13]


@pytest.mark.fault("data file changes or goes while it is read")
def test_a_file_that_is_removed_between_listing_and_reading(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = folder / "train" / "dog" / "1.png"
    while_reading(monkeypatch, gone.unlink)
    with pytest.raises(UserError, match=r"there is no image .*dog/1.png: it was removed"):
        loaded(folder)
    assert len(loaded(folder).train) == 7


@pytest.mark.fault("data file changes or goes while it is read")
def test_a_file_that_is_removed_while_the_set_is_listed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = folders._list_images

    def removing(*args: Any) -> Any:
        result = listed(*args)
        (folder / "train" / "dog" / "1.png").unlink(missing_ok=True)
        return result

    monkeypatch.setattr(folders, "_list_images", removing)
    with pytest.raises(UserError, match=r"dog/1.png was removed while the images were listed: run the same command"):
        loaded(folder)
    assert len(loaded(folder).train) == 7


@pytest.mark.fault("data file changes under the cache")
@pytest.mark.parametrize("cached", [True, False])
def test_files_that_are_read_on_the_way_and_change(folder: Path, monkeypatch: pytest.MonkeyPatch, cached: bool) -> None:
    monkeypatch.setattr(cache, "LARGEST", 100)
    if not cached:
        (folder.parent / "cache").write_text("in the way")
    data = loaded(folder)
    changed, gone = folder / "train" / "cat" / "0.png", folder / "train" / "dog" / "3.png"
    draw(99).resize((9, 9)).save(changed)
    gone.unlink()
    with pytest.raises(UserError, match=r"cat/0.png was changed during the run"):
        data.train.images[np.array([0])]
    with pytest.raises(UserError, match=r"dog/3.png was removed during the run"):
        data.train.images[np.array([7])]
    assert data.train.images[np.array([1])].max() == 1


@pytest.mark.fault("cache cannot be written")
def test_a_cache_that_cannot_be_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As an ordinary user; root may write everywhere."""
    place = folder.parent / "cache"
    place.mkdir()
    place.chmod(stat.S_IRUSR | stat.S_IXUSR)
    if os.access(place, os.W_OK):

        def refuse(self: Path, *args: Any, **options: Any) -> None:
            raise PermissionError(13, "Permission denied", str(self))

        monkeypatch.setattr(Path, "write_text", refuse)
    data = loaded(folder)
    place.chmod(stat.S_IRWXU)
    assert isinstance(data.train.images, HeldPixels) and len(data.train) == 8 and not list(place.iterdir())


@pytest.mark.parametrize("where", ["", "train", "train/cat", "val", "val/dog"])
def test_empty_folders(folder: Path, where: str) -> None:
    for file in (folder / where).rglob("*.png"):
        file.unlink()
    for path in sorted((folder / where).rglob("*"), reverse=True):
        path.rmdir()
    with pytest.raises(UserError, match=r"one is needed for every class|holds? no image|have no folder"):
        loaded(folder)


def test_names_that_are_no_text(folder: Path) -> None:
    """A file's name is bytes; these are no UTF-8."""
    odd = os.fsencode(folder / "train" / "cat") + b"/\xff\xfe.png"
    with open(odd, "wb") as file:
        draw(50).save(file, "png")
    assert 50 in first_pixels(loaded(folder))


# --- the cache --------------------------------------------------------------------------------------------------------

DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "cut": lambda content: content[: len(content) // 2],
    "zeroed": lambda content: bytes(len(content)),
    "noise": lambda content: np.random.default_rng(0).bytes(len(content)),
    "list": lambda content: b"[]",
    "deep": lambda content: b"[" * 100_000,
    "number": lambda content: b"9" * 5000,
}


@pytest.mark.fault("cache damaged")
@pytest.mark.parametrize("lazy", [True, False])
@pytest.mark.parametrize("damage", [*DAMAGES, "missing", "folder"])
def test_every_file_of_a_cache_damaged(folder: Path, monkeypatch: pytest.MonkeyPatch, damage: str, lazy: bool) -> None:
    if lazy:
        monkeypatch.setattr(cache, "LARGEST", 100)
    data = loaded(folder)
    place = folder.parent / "cache" / f"imagefolder-{data.fingerprint}"
    names = sorted(path.name for path in place.iterdir())
    assert len(names) == 6
    for name in names:
        content = (place / name).read_bytes()
        (place / name).unlink()
        if damage == "folder":
            (place / name).mkdir()
        elif damage != "missing":
            (place / name).write_bytes(DAMAGES[damage](content))
        again = loaded(folder)
        assert first_pixels(again) == [0, 1, 2, 3, 10, 11, 12, 13] and again.train.labels.tolist() == [0] * 4 + [1] * 4


@pytest.mark.fault("cache damaged")
@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("train_labels", np.full(8, 2)),
        ("train_labels", np.full(8, -1)),
        ("train_labels", np.zeros(8)),
        ("train_images", np.zeros((8, SIDE, SIDE, 3))),
    ],
)
def test_a_cache_of_wrong_numbers(folder: Path, name: str, array: Any) -> None:
    data = loaded(folder)
    np.save(folder.parent / "cache" / f"imagefolder-{data.fingerprint}" / f"{name}.npy", array)
    again = loaded(folder)
    assert first_pixels(again) == [0, 1, 2, 3, 10, 11, 12, 13] and again.train.labels.tolist() == [0] * 4 + [1] * 4
