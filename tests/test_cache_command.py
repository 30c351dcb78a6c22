"""`dasvit cache`: what is listed, what is removed, and what must stay."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dasvit.config import DataConfig
from dasvit.config.units import parse_age
from dasvit.data import load_data
from dasvit.data.cache import note
from dasvit.data.cache_use import clean_cache, list_cache
from dasvit.errors import UserError
from helpers import call_cli

READER = """
import sys, time
from dasvit.config import DataConfig
from dasvit.data import load_data
data = load_data(DataConfig(cache=sys.argv[1]), 8, 0)
print("open", flush=True)
sys.stdin.readline()
print(int(data.train.images[[0]].sum()))
"""


def fill(cache: Path) -> Path:
    """Decode the digits in a process of its own, which lets go of them as it ends; return the new folder."""
    before = set(cache.iterdir()) if cache.exists() else set()
    subprocess.run([sys.executable, "-c", READER, str(cache)], input=b"\n", check=True)
    (new,) = (path for path in set(cache.iterdir()) - before if path.is_dir())
    return new


def test_what_is_kept_is_listed(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    folder = fill(cache)
    status, out, _ = call_cli("cache", "--folder", cache, "--json")
    (entry,) = json.loads(out)["entries"]
    size = sum(file.stat().st_size for file in folder.iterdir())
    assert status == 0 and entry["folder"] == folder.name and entry["bytes"] == size
    assert (entry["name"], entry["images"], entry["side"], entry["finished"]) == ("digits", 1797, 8, True)
    assert abs(entry["used"] - time.time()) < 600
    status, out, _ = call_cli("cache", "--folder", cache)
    assert status == 0 and "1 data sets decoded" in out and "1,797" in out
    assert call_cli("cache", "--folder", tmp_path / "nothing")[0] == 0


def test_nothing_but_decoded_images_is_removed(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    folder = fill(cache)
    name = "photos-" + 24 * "a"
    (cache / "downloads").mkdir()
    (cache / "latency").mkdir()
    (cache / name).mkdir()
    (cache / name / "mine.txt").write_text("kept")
    (cache / ("b" + folder.name)).mkdir()
    elsewhere = tmp_path / "elsewhere"
    folder.rename(elsewhere)
    (cache / folder.name).symlink_to(elsewhere, target_is_directory=True)
    (nested := cache / ("x-" + 24 * "0")).mkdir()
    (nested / "meta.json").write_text('{"counts": {"train": 1}, "plan": {"side": 8}}')
    (nested / "inner").mkdir()
    before = sorted(str(path) for path in cache.rglob("*"))
    assert list(clean_cache(cache)) == []
    assert sorted(str(path) for path in cache.rglob("*")) == before and elsewhere.is_dir()


def test_age_decides_and_what_is_left_half_written_goes(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    folder = fill(cache)
    os.utime(folder / "meta.json", (time.time() - 3 * 86400,) * 2)
    assert call_cli("cache", "--folder", cache, "--clean", "--older", "4d")[0] == 0 and folder.is_dir()
    fresh, stale = (cache / f".digits-{24 * digit}-{8 * digit}" for digit in "12")
    for place in (fresh, stale):
        place.mkdir()
        (place / "train_labels.npy").write_bytes(b"x")
    os.utime(stale, (time.time() - 3 * 86400,) * 2)
    status, out, _ = call_cli("cache", "--folder", cache, "--clean", "--older", "2d")
    assert status == 0 and "removed 2 data sets" in out
    assert not folder.exists() and not stale.exists() and fresh.is_dir()
    assert [path.name for path in cache.iterdir() if path.is_dir()] == [fresh.name]


@pytest.mark.skipif(sys.platform == "win32", reason="locks are POSIX's")
def test_what_a_process_reads_stays(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    with subprocess.Popen(
        [sys.executable, "-c", READER, str(cache)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as reader:
        assert reader.stdout and reader.stdin and reader.stdout.readline() == "open\n"
        status, out, _ = call_cli("cache", "--folder", cache, "--clean")
        assert status == 0 and "removed 0 data sets" in out and "is in use" in out
        (entry,) = list_cache(cache)
        reader.stdin.write("\n")
        reader.stdin.flush()
        assert int(reader.stdout.readline()) > 0
    assert [gone for _, gone in clean_cache(cache)] == [True] and not entry.path.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="locks are POSIX's")
def test_what_is_written_anew_stays_held(tmp_path: Path) -> None:
    """A folder whose meta.json is replaced, and one that is decoded anew in a removed one's place."""
    cache = tmp_path / "cache"
    load_data(DataConfig(cache=str(cache)), 8, 0)
    (entry,) = list_cache(cache)
    note(entry.path, deep=False)
    assert [gone for _, gone in clean_cache(cache)] == [False]
    shutil.rmtree(entry.path)
    load_data(DataConfig(cache=str(cache)), 8, 0)
    assert entry.path.is_dir() and [gone for _, gone in clean_cache(cache)] == [False]


def test_opening_counts_as_use(tmp_path: Path) -> None:
    folder = fill(tmp_path / "cache")
    os.utime(folder / "meta.json", (0, 0))
    load_data(DataConfig(cache=str(tmp_path / "cache")), 8, 0)
    assert time.time() - list_cache(tmp_path / "cache")[0].used < 600


def test_mistakes(tmp_path: Path) -> None:
    status, _, err = call_cli("cache", "--folder", tmp_path, "--older", "30d")
    assert status == 2 and "give both" in err
    assert parse_age("1.5h", "--older") == 5400 and parse_age("2d", "--older") == 172800
    with pytest.raises(UserError, match="--older takes days, hours or minutes, as 30d"):
        parse_age("30", "--older")
