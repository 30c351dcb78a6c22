"""The pages in a headless Chromium: no complaints, nothing fetched, and what a reader sees and does."""

import contextlib
import html
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from browser import Browser, find_browser
from dasvit.report import write_report
from dasvit.report.compare.page import write_comparison
from dasvit.report.run import page
from dasvit.study.verdicts import write_study
from run_folders import write_search, write_train
from studies import made_up

PROGRAM = find_browser()
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no Chromium is installed (Debian: apt-get install chromium)")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    assert PROGRAM is not None
    with Browser(PROGRAM, tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("runs")
    search, train = write_search(root / "search", train=True), write_train(root / "train")
    wide = write_search(root / "wide", nodes=4, ended=False)
    return {
        "search": write_report(search),
        "train": write_report(train),
        "wide": write_report(wide),
        "comparison": write_comparison([search, train, wide], root / "comparison.html"),
        "study": study_page(root / "study"),
    }


def study_page(folder: Path) -> Path:
    folder.mkdir()
    write_study(folder, made_up())
    return folder / "report.html"


@pytest.fixture(autouse=True)
def in_peace(browser: Browser) -> Iterator[None]:
    """No test may leave a complaint on the console, or have anything fetched but files of its own."""
    browser.complaints.clear()
    browser.requests.clear()
    yield
    assert browser.complaints == []
    assert browser.requests and all(address.startswith(("file:///", "data:")) for address in browser.requests)


NAMES = ("search", "train", "wide", "comparison", "study")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("width", [375, 768, 1280])
def test_pages_fit_the_window(browser: Browser, pages: dict[str, Path], name: str, width: int) -> None:
    browser.show(pages[name], width)
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    # Nothing but what scrolls by itself reaches over the edge.
    beyond = """[...document.querySelectorAll("main *")].filter((e) => !e.closest(".scroll") && !e.closest(".hidden")
        && e.getBoundingClientRect().right > innerWidth + 1).map((e) => e.outerHTML.slice(0, 80))"""
    assert browser.evaluate(beyond) == []


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("width", [375, 1280])
def test_text_in_charts_can_be_read_and_stays_inside(
    browser: Browser, pages: dict[str, Path], name: str, width: int
) -> None:
    browser.show(pages[name], width)
    small = """[...document.querySelectorAll("svg text")].filter((t) => t.getBoundingClientRect().width
        && parseFloat(getComputedStyle(t).fontSize) * t.getScreenCTM().a < 9).map((t) => t.textContent)"""
    assert browser.evaluate(small) == []
    outside = """[...document.querySelectorAll("svg.plot text")].filter((t) => {
        const a = t.getBoundingClientRect(), b = t.closest("figure").getBoundingClientRect();
        return a.width && (a.left < b.left - 12 || a.right > b.right + 12); }).map((t) => t.textContent)"""
    assert browser.evaluate(outside) == []


@pytest.mark.parametrize("dark", [False, True])
def test_the_theme_is_the_systems_until_the_button(browser: Browser, pages: dict[str, Path], dark: bool) -> None:
    paper = "getComputedStyle(document.body).backgroundColor"
    browser.show(pages["search"], dark=dark)
    before = browser.evaluate(paper)
    assert before == ("rgb(14, 17, 21)" if dark else "rgb(243, 244, 246)")
    line = "getComputedStyle(document.querySelector('.legend .op-1 path')).stroke"
    assert browser.evaluate(line) == ("rgb(255, 255, 255)" if dark else "rgb(16, 16, 16)")
    assert browser.evaluate("document.getElementById('theme').click(), " + paper) != before
    browser.show(pages["search"], dark=dark)
    assert browser.evaluate(paper) != before  # remembered
    browser.evaluate("localStorage.clear()")
    browser.show(pages["search"], dark=dark)
    assert browser.evaluate(paper) == before


def test_text_stands_out_in_both_themes(browser: Browser, pages: dict[str, Path]) -> None:
    """Every text that is shown against the first background behind it: a contrast of 4.5 (WCAG AA)."""
    script = """(() => {
        const parse = (c) => (c.match(/[\\d.]+/g) ?? []).map(Number);
        const lum = ([r, g, b]) => { const f = (v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
            return 0.2126 * f(r) + 0.7152 * f(g) + 0.0722 * f(b); };
        const paper = (e) => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor);
            if (c.length === 3 || c[3] > 0) return c; } return [255, 255, 255]; };
        const bad = [];
        for (const e of document.querySelectorAll("h1,h2,h3,p,a,dt,dd,small,li,summary,figcaption,output,button")) {
            if (!e.offsetParent || !e.textContent.trim() || e.closest(".skip")) continue;
            const [x, y] = [lum(parse(getComputedStyle(e).color)), lum(paper(e))].sort((a, b) => b - a);
            if ((x + 0.05) / (y + 0.05) < 4.5) bad.push(e.outerHTML.slice(0, 60));
        }
        return bad; })()"""
    for name in ("search", "comparison"):
        for dark in (False, True):
            browser.show(pages[name], dark=dark)
            assert browser.evaluate(script) == []


def test_the_slider_redraws_the_mixture(browser: Browser, pages: dict[str, Path]) -> None:
    browser.show(pages["search"])
    paths = "[...document.querySelectorAll('#mixture .ribbon')].map((p) => p.getAttribute('d')).join('|')"
    drawn = browser.evaluate("[...document.querySelectorAll('#mixture .leader')].map((t) => t.textContent).join()")
    last = browser.evaluate(paths)
    assert browser.evaluate("document.getElementById('shown').textContent") == "epoch 5, stage 2"
    browser.evaluate("document.getElementById('epoch').focus()")
    browser.press("Home", 36)
    assert browser.evaluate("document.getElementById('shown').textContent") == "epoch 1, stage 1"
    assert browser.evaluate("document.getElementById('epoch').getAttribute('aria-valuetext')") == "epoch 1, stage 1"
    assert browser.evaluate(paths) != last
    browser.press("End", 35)
    assert browser.evaluate(paths) == last
    again = browser.evaluate("[...document.querySelectorAll('#mixture .leader')].map((t) => t.textContent).join()")
    assert again == drawn


def test_script_and_page_draw_the_same_mixture(browser: Browser, pages: dict[str, Path]) -> None:
    """The script draws at once; what it draws of the last epoch is what the page came with, to rounding."""
    browser.show(pages["search"])
    drawn = browser.evaluate("[...document.querySelectorAll('#mixture .ribbon')].map((p) => p.getAttribute('d'))")
    came = re.findall(r'<path d="([^"]*)" class="ribbon', pages["search"].read_text())
    numbers = re.compile(r"-?[\d.]+")
    assert len(drawn) == len(came) > 20
    for one, other in zip(drawn, came, strict=True):
        pairs = list(zip(numbers.findall(one), numbers.findall(other), strict=True))
        assert numbers.sub("", one) == numbers.sub("", other)
        assert all(abs(float(a) - float(b)) < 0.2 for a, b in pairs)


def test_the_slider_redraws_the_token_maps_as_the_page_drew_them(browser: Browser, pages: dict[str, Path]) -> None:
    browser.show(pages["search"])
    covers = "[...document.querySelectorAll('.token-row li:not([hidden]) .left-out')].map((p) => p.getAttribute('d'))"
    names = "[...document.querySelectorAll('.token-row li:not([hidden]) svg')].map((s) => s.getAttribute('aria-label'))"
    came = pages["search"].read_text()
    drawn = re.findall(r'<path d="([^"]*)" class="left-out"', came)
    assert browser.evaluate(covers) == drawn and len(drawn) == 8, "four layers in the last stage, of two images"
    assert browser.evaluate(names) == [
        html.unescape(n)
        for n in re.findall(r'role="img" aria-label="([^"]*)"', came)
        if ", layer " in html.unescape(n) or "the whole image" in n
    ]
    browser.evaluate("document.getElementById('token-epoch').focus()")
    browser.press("Home", 36)
    assert browser.evaluate("document.getElementById('token-shown').textContent") == "epoch 1, stage 1"
    first = browser.evaluate(covers)
    assert len(first) == 4 and first[0] == "M0 0h8v1h-8z" + "".join(f"M0 {y}h8v1h-8z" for y in (5, 6, 7))
    assert "a <dog>, layer 2: 32 of 64 patches kept, 38 % of them in the middle" in browser.evaluate(names)


def test_playing_runs_to_the_last_epoch(browser: Browser, pages: dict[str, Path]) -> None:
    browser.show(pages["search"])
    browser.evaluate("document.getElementById('play').click()")
    assert browser.evaluate("document.getElementById('shown').textContent").startswith("epoch 1,")
    assert browser.evaluate("document.getElementById('play').getAttribute('aria-label')") == "Stop"
    wait(lambda: browser.evaluate("document.getElementById('play').getAttribute('aria-label')") == "Play the epochs")
    assert browser.evaluate("document.getElementById('shown').textContent") == "epoch 5, stage 2"


def wait(ready: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while True:
        with contextlib.suppress(AssertionError):  # between one page and the next nothing can be asked
            if ready():
                return
        assert time.monotonic() < end
        time.sleep(0.1)


def test_values_under_the_pointer(browser: Browser, pages: dict[str, Path]) -> None:
    browser.show(pages["search"])
    browser.evaluate("document.querySelector('#learning .chart').scrollIntoView()")
    box = browser.evaluate(
        "(() => { const b = document.querySelector('#learning svg').getBoundingClientRect();"
        " return [b.left, b.top, b.width, b.height]; })()"
    )
    browser.point(box[0] + box[2] * 46 / 360 + 2, box[1] + box[3] / 2)
    assert browser.evaluate("document.querySelector('.tip').innerText").split("\n") == [
        "epoch 1",
        "training (augmented): 2",
    ]
    browser.point(5, 5)
    assert browser.evaluate("document.querySelector('.tip')") is None


def test_the_keyboard_comes_everywhere(browser: Browser, pages: dict[str, Path]) -> None:
    browser.show(pages["search"])
    met = []
    for _ in range(80):
        browser.press("Tab", 9)
        met.append(
            browser.evaluate(
                "(document.activeElement.id || document.activeElement.className ||"
                " document.activeElement.tagName).toString()"
            )
        )
    assert met[0] == "skip" and "theme" in met and "play" in met and "epoch" in met
    assert "scroll" in met and met.count("SUMMARY") >= 10
    outline = (
        "document.getElementById('theme').focus(), getComputedStyle(document.getElementById('theme')).outlineStyle"
    )
    assert browser.evaluate(outline) == "solid"


def test_what_a_screen_reader_is_told(browser: Browser, pages: dict[str, Path]) -> None:
    browser.show(pages["search"])
    images = browser.named("image")
    assert len(images) >= 20 and all(images)
    assert any(name.startswith("The cell: x1 is mlp_1 of prev2 plus msa_2 of prev1") for name in images)
    assert any(name.startswith("prev2→x1. zero from 0.125 to") for name in images)
    assert browser.named("main") == [""] or browser.named("main")
    assert sorted(browser.named("slider")) == ["Epoch", "Epoch of the token maps"]
    assert "Switch between light and dark" in browser.named("button")
    assert {"Cell", "Weights of the operations", "Fairness and collapse"} <= set(browser.named("heading"))


def test_a_live_page_follows_the_run(browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_search(tmp_path / "run", ended=False, done=2)
    monkeypatch.setattr(page, "pace_of", lambda run: 1.0)  # quick epochs: it looks again every three seconds
    browser.show(write_report(folder, live=True), height=500)
    status = "document.readyState === 'complete' && document.querySelector('.status').innerText"
    assert "Running: epoch 2 of 5" in browser.evaluate(status) and "Written" in browser.evaluate(status)
    browser.evaluate("document.querySelector('#learning details').open = true; scrollTo(0, 1500)")
    write_search(folder, ended=False, done=3)
    write_report(folder, live=True)
    wait(lambda: "Running: epoch 3 of 5" in (browser.evaluate(status) or ""))
    assert browser.evaluate("document.querySelector('#learning details').open") is True
    assert browser.evaluate("document.querySelectorAll('details[open]').length") == 4  # and three of the configuration
    assert browser.evaluate("scrollY") == 1500
    write_search(folder)
    write_report(folder, live=True)
    wait(lambda: "Ended after 5 epochs" in (browser.evaluate(status) or ""))
    browser.evaluate("window.mark = 1")
    time.sleep(4)  # a live page would have come anew
    assert browser.evaluate("window.mark") == 1


def test_a_run_that_fell_silent_is_said_to_have(browser: Browser, tmp_path: Path) -> None:
    path = write_report(write_search(tmp_path / "run", ended=False, done=2), live=True)
    old = re.sub(r'data-written="\d+"', f'data-written="{time.time() - 3600:.0f}"', path.read_text())
    path.write_text(old)
    browser.show(path)
    assert "No news for 60 min: the run may have stopped." in browser.evaluate(
        "document.querySelector('.status').innerText"
    )


def test_without_scripts_the_page_is_whole(browser: Browser, pages: dict[str, Path]) -> None:
    browser._send("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.show(pages["search"])
        assert browser.named("image") and "Cell" in browser.named("heading")
    finally:
        browser._send("Emulation.setScriptExecutionDisabled", value=False)
