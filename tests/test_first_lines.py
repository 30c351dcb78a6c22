"""What every search and training says of its images before it begins, and shows of them on its page."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dasvit.data.looks import Look, Looks, Seen, near_groups
from helpers import call_cli

pytestmark = pytest.mark.fault("data that can be misunderstood")

TINY = ["--model.image_size=16", "--model.patch_size=8", "--model.width=8", "--model.layers=1", "--model.heads=2"]
TRAIN = ["--train.epochs=1", "--train.batch_size=8", "--config=folder-small", "--runtime.precision=float32"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes in several sizes and depths, one image again in another format, and no test images."""
    root, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for name in ("ant", "bee"):
        (root / name).mkdir()
        for i in range(12):
            coarse = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
            picture = Image.fromarray(coarse).resize((24 + 8 * (i % 2), 24), Image.Resampling.BICUBIC)
            picture.save(root / name / f"{i}.png")
    again = Image.open(root / "ant" / "0.png")
    again.save(root / "bee" / "again.jpg", quality=95)
    Image.fromarray((rng.random((24, 24)) * 65535).astype(np.uint16)).save(root / "bee" / "deep.png")
    return root


@pytest.mark.parametrize("command", ["train", "search"])
def test_first_lines_and_page(photos: Path, tmp_path: Path, command: str) -> None:
    run = tmp_path / "run"
    how = ["--model", "vit"] if command == "train" else ["--method=random", "--search.batch_size=8"]
    how += [*TRAIN] if command == "train" else ["--config=folder-small"]
    status, _, err = call_cli(command, *how, "--data.path", photos, *TINY, "--run", run)
    assert status == 0, err
    assert "sizes: 24×24 (14), 32×24 (12)" in err, err
    assert "modes: RGB, 8 bit (25), I;16, 16 bit (1)" in err
    assert "alike: 2 images in one group look alike" in err and "again.jpg" in err
    assert "MB of decoded images" in err and "held_out.txt names all" in err
    assert "window: " in err or "fit: crop" in err or "alike" in err
    held = (run / "held_out.txt").read_text().splitlines()
    assert held and all(Path(name).is_absolute() or name for name in held)
    kept = json.loads((run / "data.json").read_text())
    assert kept["seen"]["modes"] == {"RGB, 8 bit": 25, "I;16, 16 bit": 1} and kept["disk"] > 0
    assert len(kept["samples"]) == 4 and {len(one["pictures"]) for one in kept["samples"]} == {3}
    page = (run / "report.html").read_text()
    assert page.count('width="72"') == 12 and "25 of" not in page and "sizes" in page and 'id="images"' in page
    # The second time the images come from the cache, and the same is said.
    again = call_cli(command, *how, "--data.path", photos, *TINY, "--run", tmp_path / "again")[2]
    lines = [line for line in err.splitlines() if line.startswith("  ")]
    assert len(lines) > 5 and [line for line in again.splitlines() if line.startswith("  ")] == lines


def test_looks_against_a_naive_count() -> None:
    rng = np.random.default_rng(1)
    looks, pictures = Looks(), [rng.integers(0, 256, (20, 20, 3), dtype=np.uint8) for _ in range(6)]
    rows = [("train", 0), ("train", 1), ("test", 0), ("test", 2), ("train", 3), ("train", 3)]
    for place, (part, i) in enumerate(rows):
        image = Image.fromarray(pictures[i])
        looks.add(part, str(place), Look.at(image, pictures[i], "x"))
    seen = looks.seen()
    assert (seen.alike, seen.groups, seen.across, seen.pair) == (4, 2, 1, ("0", "2"))
    assert seen.sizes == {"20×20": 6} and seen.modes == {"RGB, 8 bit": 6}
    assert Seen.read(json.loads(json.dumps(seen.to_dict()))) == seen and Seen.read(None) is None
    assert any("4 images in 2 groups look alike, 1 of the groups across" in s for s in seen.lines())


def test_many_sizes_are_counted_not_listed() -> None:
    looks = Looks()
    for side in range(10, 30):
        looks.add("train", str(side), Look((side, side), "L, 8 bit"))
    assert looks.seen().lines()[0].endswith(" and 15 more") and looks.seen().groups == 0


def test_an_older_cache_says_nothing_of_it(photos: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    how = ["--model", "vit", *TRAIN, "--data.path", photos, *TINY, "--data.cache", cache]
    assert call_cli("train", *how, "--run", tmp_path / "a")[0] == 0
    (file,) = cache.glob("*/meta.json")
    meta = json.loads(file.read_text())
    file.write_text(json.dumps({name: value for name, value in meta.items() if name != "seen"}))
    status, _, err = call_cli("train", *how, "--run", tmp_path / "b")
    assert status == 0 and "sizes: " not in err and json.loads((tmp_path / "b/data.json").read_text())["seen"] is None


def test_near_groups_against_all_pairs() -> None:
    """The tree finds what comparing every picture with every other finds."""
    rng = np.random.default_rng(2)
    coarse = rng.integers(0, 256, (40, 4, 4)).repeat(4, 1).repeat(4, 2)
    near = np.clip(coarse[:10] + rng.normal(0, 4, (10, 16, 16)), 0, 255)
    far = np.clip(coarse[10:20] + rng.normal(0, 40, (10, 16, 16)), 0, 255)
    flat = np.full((3, 16, 16), 7)
    flat[1, 0, 0] = 9
    small = np.concatenate([coarse, near, far, flat]).astype(np.uint8)
    expected = set()
    for one in range(len(small)):
        for other in range(one):
            a, b = small[one].astype(float), small[other].astype(float)
            if (a == b).all():
                expected.add((other, one))
            elif min(a.std(), b.std()) >= 2:
                scaled = (a - a.mean()) / a.std() - (b - b.mean()) / b.std()
                if (scaled**2).mean() ** 0.5 < 0.15 and ((a - b) ** 2).mean() ** 0.5 < 10:
                    expected.add((other, one))
    found = near_groups(small)
    assert {tuple(group) for group in found} == expected and expected >= {(i, 40 + i) for i in range(10)}
    assert (60, 62) in expected and not expected & {(10 + i, 50 + i) for i in range(10)}


def test_pictures_of_the_same_means_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Patterns within the blocks: no radius tells their means apart."""
    monkeypatch.setattr("dasvit.data.looks.MOST_PAIRS", 50)
    small = np.empty((40, 16, 16), dtype=np.uint8)
    for i in range(40):
        block = np.random.default_rng(i).permutation([0] * 8 + [200] * 8).reshape(4, 4)
        small[i] = np.tile(block, (4, 4))
    assert near_groups(small) == []


def test_images_all_of_one_kind_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """More pairs than can be held: the nearest count."""
    monkeypatch.setattr("dasvit.data.looks.MOST_PAIRS", 50)
    rng = np.random.default_rng(3)
    small = np.clip(rng.integers(0, 256, (16, 16)) + rng.normal(0, 3, (60, 16, 16)), 0, 255).astype(np.uint8)
    assert len(near_groups(small)) <= 30
