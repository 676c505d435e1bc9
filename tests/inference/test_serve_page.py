"""The page in a real browser: files, a recording, refusals, many at once, the keyboard alone, other models, a phone."""

import csv
import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile
from browser import Browser, find_chromium
from serving import Running, running

from sejax.inference.serve.limits import Limits

pytestmark = [
    pytest.mark.skipif(find_chromium() is None, reason="the page needs a browser: apt-get install chromium"),
    pytest.mark.xdist_group("browser"),
]
RATE = 16_000
DONE = (
    "document.getElementById('status').textContent.includes('confidence') && "
    "document.querySelectorAll('#table td').length"
)
# Keeps the texts of files that are downloaded.
CATCH = """window.made = [];
const make = URL.createObjectURL;
URL.createObjectURL = (file) => { file.text().then((text) => made.push(text)); return make(file); };"""
SHOWN = "!document.getElementById('alert').hidden && document.getElementById('alert').textContent"


def write(path: Path, seconds: float, rate: int = RATE) -> Path:
    time_ = np.arange(int(seconds * rate)) / rate
    soundfile.write(path, 0.6 * time_ / seconds * np.sin(1400 * time_), rate)
    return path


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(write(tmp_path_factory.mktemp("microphone") / "voice.wav", 5, 48_000)) as opened:
        yield opened


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running() as served:
        yield served


@pytest.fixture
def page(browser: Browser, server: Running) -> Iterator[Browser]:
    browser.look(1000, 800)
    browser.open(server.address)
    yield browser
    assert [found for found in browser.complaints if "422" not in found and "413" not in found] == []
    browser.complaints.clear()


def test_a_file(page: Browser, server: Running, tmp_path: Path):
    path = write(tmp_path / "my, voice.wav", 4)
    page.upload(path)
    page.wait(DONE)
    (record,) = server.model.predict([path])
    assert page.text("audio-name") == "my, voice.wav"
    assert page.text("label") == record.label and f"{100 * record.confidence:.0f} %" in page.text("confidence")
    shares = page.value("[...document.querySelectorAll('#bars .value')].map((value) => value.textContent)")
    assert shares == [f"{100 * share:.0f} %" for share in record.probabilities.values()]
    said = page.value("document.querySelector('#plane svg').getAttribute('aria-label')")
    low, high = record.intervals["valence"]
    assert f"valence {record.dimensions['valence']:.2f}" in said and f"interval {low:.3f} to {high:.2f}" in said
    assert page.value("document.querySelectorAll('#plane .interval, #plane .spread, #plane .point').length") == 3
    assert page.value("document.querySelectorAll('#course .wave').length") == 1
    page.value(
        "(own => { own.value = 99; own.dispatchEvent(new Event('input')); })(document.getElementById('threshold'))"
    )
    assert page.text("label") == "unsure" and "leans to" in page.text("confidence")


def test_downloads(page: Browser, server: Running, tmp_path: Path):
    page.upload(write(tmp_path / "a,b.wav", 2))
    page.wait(DONE)
    page.value(CATCH)
    page.value("document.getElementById('csv').click(); document.getElementById('json').click()")
    page.wait("window.made.length === 2")
    table, tree = sorted(page.value("window.made"), key=lambda text: text.startswith("{"))
    rows = list(csv.DictReader(io.StringIO(table)))
    assert rows[0]["file"] == "a,b.wav" and list(rows[0]) == server.ask("GET", "/model").tree["columns"]
    assert tree.count('"file"') == len(rows) > 5


def test_a_recording(page: Browser):
    page.value("document.getElementById('record').click()")
    page.wait("document.getElementById('clock').textContent >= '0:02'")
    assert page.text("record") == "Stop"
    page.value("document.getElementById('record').click()")
    page.wait(DONE)
    assert page.text("audio-name") == "recording.wav" and page.text("record") == "Record"
    assert page.value("document.querySelectorAll('#course .wave').length") == 1


def test_a_refused_file(page: Browser, tmp_path: Path):
    (tmp_path / "x.wav").write_text("hello")
    page.upload(tmp_path / "x.wav")
    assert page.wait(SHOWN).startswith("x.wav: is a text")
    assert page.value("document.getElementById('results').hidden")
    page.upload(write(tmp_path / "y.wav", 1))
    page.wait(DONE)
    assert page.value("document.getElementById('alert').hidden")


def test_large_files(page: Browser, tmp_path: Path):
    page.upload(write(tmp_path / "large.wav", 208, 48_000))  # 20.0 MB
    page.wait(DONE)
    page.upload(write(tmp_path / "larger.wav", 215, 48_000))
    assert page.wait(SHOWN) == "larger.wav has 20.6 MB, expected 20 MB or less."


def test_ten_others_at_once(browser: Browser, tmp_path: Path):
    """Each is answered; the page's own one shows a result or the sentence."""
    path = write(tmp_path / "a.wav", 1)
    with running(limits=Limits(requests=4)) as served, ThreadPoolExecutor(10) as pool:
        browser.open(served.address)
        served.scorer.go.clear()
        asked = [pool.submit(served.ask, "POST", "/predict", path.read_bytes()) for _ in range(10)]
        while sum(each.done() for each in asked) < 6:
            browser.value("1")
        browser.upload(path)
        assert browser.wait(SHOWN).startswith("4 requests are being answered")
        served.scorer.go.set()
        assert sorted(each.result().status for each in asked) == [200] * 4 + [503] * 6
        browser.upload(path)
        browser.wait(DONE)
    browser.complaints.clear()


def test_the_keyboard_alone(page: Browser, tmp_path: Path):
    focused = "document.activeElement.id || document.activeElement.className"
    page.press("Tab", "Tab")
    assert page.value(focused) == "choose"
    assert page.value("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.press("Tab")
    assert page.value(focused) == "record"
    page.press(" ")
    page.wait("document.getElementById('clock').textContent >= '0:02'")
    page.press(" ")
    page.wait(DONE)
    seen = []
    for _ in range(30):
        page.press("Tab")
        seen.append(page.value(focused))
        if seen[-1] == "course":
            break
    assert {"threshold", "window"} <= set(seen)
    page.press("Home")
    first = page.value("document.getElementById('course').getAttribute('aria-valuetext')")
    page.press("ArrowRight", "ArrowRight", "End")
    last = page.value("document.getElementById('course').getAttribute('aria-valuetext')")
    assert first.startswith("0.0 s: ") and "valence" in last and last != first
    for _ in range(3):
        page.press("Tab")
        seen.append(page.value(focused))
    assert seen[-3:] == ["csv", "json", "table"]


@pytest.mark.parametrize(
    ("classes", "dimensions", "there"),
    [
        (("sad", "happy"), (), {"classes"}),
        ((), ("valence", "arousal"), {"dimensions", "plane svg"}),
        ((), ("dominance",), {"dimensions"}),
    ],
)
def test_other_models(
    browser: Browser, classes: tuple[str, ...], dimensions: tuple[str, ...], there: set[str], tmp_path: Path
):
    with running(classes, dimensions) as served:
        browser.open(served.address)
        browser.upload(write(tmp_path / "a.wav", 3))
        browser.wait("document.querySelectorAll('#table td, #course svg').length > 1")
        for part in ("classes", "dimensions", "plane svg"):
            visible = browser.value(f"Boolean(document.querySelector('#{part}')?.getBoundingClientRect().width)")
            assert visible == (part in there), part
        assert browser.complaints == []


def test_the_card_is_only_text(page: Browser):
    page.value("document.getElementById('about').open = true")
    card = page.text("card")
    assert "A card <b>that</b> is text" in card and "<img src=x onerror=alert(1)>" in card
    assert page.value("document.querySelectorAll('#card img, #card b, #card script').length") == 0
    assert page.value("[...document.querySelectorAll('#card a')].map((link) => link.href)") == ["https://example.org/"]
    assert page.value("document.querySelectorAll('#card td').length") == 2


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_in_the_light_and_in_the_dark(page: Browser, scheme: str, tmp_path: Path):
    page.look(360, 740, features=[("prefers-color-scheme", scheme), ("prefers-reduced-motion", "reduce")])
    page.upload(write(tmp_path / "a rather long name of a file that somebody has recorded.wav", 3))
    page.wait(DONE)
    assert page.value("document.documentElement.scrollWidth") == 360
    assert page.value(LOW_CONTRAST) == []
    assert page.value("getComputedStyle(document.querySelector('.bar span')).transitionDuration") in ("0s", "")


# Texts whose contrast with what is behind them is below that of WCAG 2.2, level AA.
LOW_CONTRAST = """(() => {
  const light = (color) => {
    const [r, g, b] = color.match(/[\\d.]+/g).map(Number).map((x) => x / 255)
      .map((x) => (x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (own) => {
    for (let at = own; at; at = at.parentElement) {
      const color = getComputedStyle(at).backgroundColor;
      if (!/rgba\\(.*, 0\\)/.test(color)) return color;
    }
    return getComputedStyle(document.body).backgroundColor;
  };
  const found = [];
  for (const own of document.querySelectorAll("body *")) {
    const texts = [...own.childNodes].filter((node) => node.nodeType === 3 && node.textContent.trim());
    if (!texts.length || !own.getClientRects().length) continue;
    const style = getComputedStyle(own), size = parseFloat(style.fontSize);
    const ink = own.namespaceURI.endsWith("svg") ? style.fill : style.color;
    const [a, b] = [light(ink), light(behind(own))].sort((x, y) => y - x);
    const large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
    if ((a + 0.05) / (b + 0.05) < (large ? 3 : 4.5)) found.push(`${own.tagName} ${own.textContent} ${style.color}`);
  }
  return found;
})()"""
