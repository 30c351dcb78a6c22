"""A corpus of broken and odd images, made here: each is decoded, or named in a sentence."""

from __future__ import annotations

import io
import struct
import subprocess
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dasvit.config import DataConfig
from dasvit.data import load_data, open_image
from dasvit.errors import UserError
from helpers import record

pytestmark = pytest.mark.filterwarnings("ignore")  # PIL warns of what it mends; the command line lets it
SUFFIXES = {"JPEG": "jpg", "PNG": "png", "GIF": "gif", "WEBP": "webp", "BMP": "bmp", "TIFF": "tif", "PPM": "ppm"}


def picture(side: int = 64) -> Image.Image:
    """Return noise, which no format makes small."""
    return Image.fromarray(np.random.default_rng(side).integers(256, size=(side, side, 3), dtype=np.uint8))


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png_of_size(width: int, height: int) -> bytes:
    """Return a PNG whose header says that size, and whose content is next to nothing."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def text_bomb() -> bytes:
    """Return a PNG with a few kilobytes of compressed text that unfold into 200 MB."""
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("bomb", "x" * 2_000_000, zip=True)
    return encoded(picture(8), "PNG", pnginfo=info)


def rotated(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(Image.new("RGB", (6, 3)), "JPEG", exif=exif)


def frames(kind: str) -> bytes:
    return encoded(picture(16), kind, save_all=True, append_images=[picture(17).resize((16, 16))] * 3, duration=10)


def palette() -> Image.Image:
    image = picture(16).quantize(8)
    image.info["transparency"] = 3
    return image


def deep(mode: str) -> Image.Image:
    grey = np.arange(256, dtype=np.uint16).reshape(16, 16) * 257
    return Image.fromarray(grey) if mode == "I;16" else Image.fromarray(grey.astype(np.int32))


GOOD: dict[str, Callable[[], bytes]] = {
    **{f"{kind} {suffix}": partial(encoded, picture(), kind) for kind, suffix in SUFFIXES.items()},
    "a PNG called jpg jpg": lambda: encoded(picture(), "PNG"),
    "a JPEG called png png": lambda: encoded(picture(), "JPEG"),
    "CMYK jpg": lambda: encoded(picture().convert("CMYK"), "JPEG"),
    "CMYK tif": lambda: encoded(picture().convert("CMYK"), "TIFF"),
    "YCbCr tif": lambda: encoded(picture().convert("YCbCr"), "TIFF"),
    "LAB tif": lambda: encoded(picture().convert("LAB"), "TIFF"),
    "16 bit png": lambda: encoded(deep("I;16"), "PNG"),
    "16 bit tif": lambda: encoded(deep("I;16"), "TIFF"),
    "32 bit tif": lambda: encoded(deep("I"), "TIFF"),
    "float with nan tif": lambda: encoded(Image.fromarray(np.full((8, 8), np.nan, np.float32)), "TIFF"),
    "one bit png": lambda: encoded(picture().convert("1"), "PNG"),
    "palette png": lambda: encoded(palette(), "PNG"),
    "palette with transparency png": lambda: encoded(palette(), "PNG", transparency=3),
    "palette with transparent bytes png": lambda: encoded(palette(), "PNG", transparency=b"\x00\x80\xff"),
    "grey with alpha png": lambda: encoded(picture().convert("LA"), "PNG"),
    "transparent colour png": lambda: encoded(picture(), "PNG", transparency=(1, 2, 3)),
    "animated gif": lambda: frames("GIF"),
    "animated webp": lambda: frames("WEBP"),
    "animated png": lambda: frames("PNG"),
    "several pages tif": lambda: frames("TIFF"),
    "one pixel png": lambda: encoded(picture(1), "PNG"),
    "one row png": lambda: encoded(picture(64).crop((0, 0, 64, 1)), "PNG"),
    "progressive jpg": lambda: encoded(picture(), "JPEG", progressive=True),
    **{f"orientation {number} jpg": partial(rotated, number) for number in range(10)},
}
BAD: dict[str, Callable[[], bytes]] = {
    "nothing png": lambda: b"",
    "zeros png": lambda: bytes(5000),
    "text jpg": lambda: b"<html>not found</html>",
    "noise jpg": lambda: np.random.default_rng(0).bytes(5000),
    "only a signature png": lambda: b"\x89PNG\r\n\x1a\n",
    "only a signature jpg": lambda: b"\xff\xd8\xff\xe0",
    "huge header png": lambda: png_of_size(2**31 - 1, 2**31 - 1),
    "large header png": lambda: png_of_size(20_000, 10_000),
    "header above our limit png": lambda: png_of_size(9460, 9460),
    "long and thin png": lambda: png_of_size(2**31 - 1, 1),
    "no pixels png": lambda: png_of_size(0, 0),
    "no pixels behind the header png": lambda: png_of_size(100, 100),
    "huge header bmp": lambda: encoded(picture(8), "BMP")[:18] + struct.pack("<ii", 2**30, 2**30) + bytes(40),
    "huge header ppm": lambda: b"P6 1000000 1000000 255\n" + bytes(100),
    "huge numbers ppm": lambda: b"P6 " + b"9" * 5000 + b" 1 255\n",
    "huge header gif": lambda: b"GIF89a" + struct.pack("<HH", 65535, 65535) + bytes(40),
    "text bomb png": text_bomb,
    "svg png": lambda: b'<svg xmlns="http://www.w3.org/2000/svg"/>',
    "an archive png": lambda: b"PK\x03\x04" + bytes(100),
}


def survives(path: Path) -> bool:
    """Open an image; return whether it was decoded, having checked that what was said of it names it."""
    try:
        image = open_image(path)
    except UserError as error:
        assert str(path) in str(error) and "\n" not in str(error)
        return False
    assert image.mode == "RGB" and np.asarray(image).dtype == np.uint8
    return True


def write(tmp_path: Path, name: str, content: bytes) -> Path:
    path = tmp_path / f"{name.rpartition(' ')[0]}.{name.rpartition(' ')[2]}"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("name", GOOD)
def test_odd_images_are_decoded(name: str, tmp_path: Path) -> None:
    assert survives(write(tmp_path, name, GOOD[name]()))


@pytest.mark.fault("broken image of the corpus")
@pytest.mark.parametrize("name", BAD)
def test_broken_images_are_named(name: str, tmp_path: Path) -> None:
    assert not survives(write(tmp_path, name, BAD[name]()))


@pytest.mark.parametrize(
    ("side", "step"), [(40, 1024), pytest.param(160, 256, marks=pytest.mark.faults)], ids=["short", "long"]
)
def test_images_cut_off_anywhere(
    side: int, step: int, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Every format is cut at every kilobyte (in the long version a quarter of one), and at its first bytes."""
    provoked = decoded = 0
    for kind, suffix in SUFFIXES.items():
        content = encoded(picture(side), kind)
        for length in [*range(1, 40, 4), *range(step, len(content), step), len(content) - 1]:
            provoked += 1
            decoded += survives(write(tmp_path, f"cut {suffix}", content[:length]))
    assert provoked > 90 and decoded < provoked / 4
    record(record_property, "image cut off", provoked)


@pytest.mark.parametrize("rounds", [3, pytest.param(60, marks=pytest.mark.faults)], ids=["short", "long"])
def test_images_with_wrong_bytes(rounds: int, tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    """Bytes are changed at random, most of them near the beginning, where the sizes stand."""
    random = np.random.default_rng(7)
    provoked = 0
    for _ in range(rounds):
        for kind, suffix in SUFFIXES.items():
            content = bytearray(encoded(picture(24), kind))
            for _ in range(4):
                content[int(len(content) * random.random() ** 4)] = random.integers(256)
            survives(write(tmp_path, f"wrong {suffix}", bytes(content)))
            provoked += 1
    record(record_property, "image with wrong bytes", provoked)


def test_no_program_is_called_for_an_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PIL gives PostScript to Ghostscript, whatever the file is called."""
    called: list[object] = []
    monkeypatch.setattr(subprocess, "Popen", lambda *args, **options: called.append(args))
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *args, **options: called.append(args))
    page = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n(/tmp/x) (w) file\n%%EOF\n"
    for suffix in ("eps", "jpg", "png"):
        path = tmp_path / f"page.{suffix}"
        path.write_bytes(page)
        assert not survives(path)
    assert called == []


def test_a_folder_of_all_of_them(tmp_path: Path) -> None:
    """`--data.on_error skip` names every broken image and keeps every good one; without it the first is named."""
    kept, broken = list(GOOD), list(BAD)
    (tmp_path / "set" / "a").mkdir(parents=True)
    (tmp_path / "set" / "b").mkdir()
    for i, name in enumerate(kept):
        write(tmp_path / "set" / "ab"[i % 2], f"{i} {name}", GOOD[name]())
    for i, name in enumerate(broken):
        write(tmp_path / "set" / "ab"[i % 2], f"broken {i} {name}", BAD[name]())
    config = DataConfig(name="imagefolder", path=str(tmp_path / "set"), cache=str(tmp_path / "cache"))
    with pytest.raises(UserError, match=r"the image .*broken"):
        load_data(config, 16, seed=0)
    config.on_error = "skip"
    data = load_data(config, 16, seed=0)
    assert len(data.train) + len(data.test) == len(kept) and len(data.skipped) == len(broken)
    assert all("broken" in Path(name).name for name in data.skipped)
