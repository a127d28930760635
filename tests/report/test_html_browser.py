"""The page in a real browser: it asks for nothing, runs nothing, and can be read by whoever reads it, however."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from edgequant.jobs.html import page_of
from edgequant.judge.bench_run import judge_folder
from edgequant.report.bench_build import build_bench
from edgequant.report.html import page
from edgequant.report.html.bench import page as bench_report_page
from edgequant.report.read import load
from tests import recorded
from tests.beds.browser import Opener, Tab
from tests.judge.benches import powersave, simple
from tests.report.pages import EVIL, devices, evil_report, written

pytestmark = pytest.mark.browser

CONTRAST = """
(() => {
  const parts = (text) => {
    const found = text.match(/-?[\\d.]+(e-?\\d+)?/g).map(Number);
    const [r, g, b] = text.startsWith("color(") ? found.slice(0, 3).map((each) => each * 255) : found;
    return [r, g, b, found.length > 3 ? found[3] : 1];
  };
  const over = (top, below) => [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3])).concat(1);
  const behind = (node) => {
    const layers = [];
    for (let each = node; each; each = each.parentElement) layers.push(parts(getComputedStyle(each).backgroundColor));
    return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255, 1]);
  };
  const light = (colour) => {
    const linear = (c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    const [r, g, b] = colour.map((each) => linear(each / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ratio = (a, b) => (Math.max(light(a), light(b)) + 0.05) / (Math.min(light(a), light(b)) + 0.05);
  const found = [];
  document.querySelectorAll("details").forEach((each) => { each.open = true; });
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || ["title", "desc", "STYLE"].includes(node.tagName)) continue;
    const style = getComputedStyle(node);
    const colour = parts(node instanceof SVGElement ? style.fill : style.color);
    const below = behind(node instanceof SVGElement ? node.closest("figure") : node);
    found.push([ratio(over(colour, below), below), walker.currentNode.textContent.trim().slice(0, 40)]);
  }
  const paper = behind(document.body);
  for (let n = 0; n < 8; n++) {
    const value = getComputedStyle(document.documentElement).getPropertyValue(`--c${n}`).trim();
    const made = document.createElement("i");
    made.style.color = value;
    document.body.append(made);
    found.push([ratio(parts(getComputedStyle(made).color), paper), `colour ${n}`]);
  }
  return found.sort((a, b) => a[0] - b[0]).slice(0, 5).concat([[found.length, "of"]]);
})()
"""


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All there can be: layers, samples, a device whose times are not known."""
    folder = tmp_path_factory.mktemp("big")
    archive = devices(folder, "local:", *(f"ssh://board{n}" for n in range(7)), layers_each=500)
    return written(archive, folder / "big.html", command="edgequant verify m.onnx")


@pytest.fixture(scope="module")
def recorded_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gru")
    run_dir = recorded.unpacked("gru", folder)
    path = folder / "gru.html"
    path.write_text(page_of(load(run_dir / "report.json"), run_dir), "utf-8")
    return path


@pytest.fixture(scope="module")
def bench_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a bench in which one setting is not valid, against a baseline."""
    folder = tmp_path_factory.mktemp("bench")
    before = simple(folder / "before")
    bench = simple(folder / "bench", 11.0, seed=4, baseline=before, **powersave())
    path = folder / "bench.html"
    path.write_text(bench_report_page(build_bench(bench, judge_folder(bench)), bench), "utf-8")
    return path


def quiet(tab: Tab, path: Path) -> None:
    """It asked for itself and for nothing else, and nothing was said."""
    assert [each for each in tab.asked if not each.startswith("data:")] == [path.as_uri()]
    assert tab.said == []


@pytest.mark.parametrize("scripts", [True, False])
def test_it_asks_for_nothing_and_is_whole_without_scripts(browse: Opener, big: Path, scripts: bool) -> None:
    tab = browse(big, scripts=scripts)
    quiet(tab, big)
    shown = "[...document.querySelectorAll('main > section > .scroll table')].map(t => [t.id, t.offsetHeight > 40])"
    assert ["overview", True] in tab.value(shown)
    assert tab.value("document.querySelector('#run-1-layers-all').rows.length") == 501
    assert tab.value("document.scripts.length") == 0
    # Nothing sticks out but what can be scrolled.
    assert tab.value("document.documentElement.scrollWidth <= innerWidth")


def test_it_opens_within_a_second(browse: Opener, big: Path) -> None:
    times = "(([e]) => e.loadEventEnd - e.responseEnd)(performance.getEntriesByType('navigation'))"
    took = 1000.0
    for _ in range(3):  # what else runs here takes its time, too
        took = min(took, browse(big).value(times))
        if took < 1000:
            break
    assert 0 < took < 1000


def well_made(tab: Tab, texts: int) -> list[int]:
    """No script; every text stands out from its background (WCAG 2.2: 4.5 to 1); each place is there once, and each
    row has a head.  texts: so many at least.  Returns the levels of its headings."""
    *worst, (count, _) = tab.value(CONTRAST)
    assert worst[0][0] >= 4.5, worst
    assert count > texts
    assert tab.value("document.scripts.length") == 0
    ids = tab.value("[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))
    targets = tab.value("[...document.querySelectorAll('a[href^=\"#\"]')].map(a => a.hash.slice(1))")
    assert set(targets) <= set(ids)
    assert tab.value("[...document.querySelectorAll('tbody tr')].every(tr => tr.querySelector('th[scope=row]'))")
    assert tab.value("[...document.querySelectorAll('table')].every(t => t.caption && t.caption.textContent)")
    levels: list[int] = tab.value("[...document.querySelectorAll('h1,h2,h3,h4')].map(h => +h.tagName[1])")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    return levels


@pytest.mark.parametrize("dark", [False, True])
def test_it_is_well_made(browse: Opener, recorded_page: Path, dark: bool) -> None:
    tab = browse(recorded_page, dark=dark)
    well_made(tab, 300)
    assert tab.value("[...document.querySelectorAll('th')].every(th => ['row', 'col'].includes(th.scope))")


def test_it_is_as_narrow_as_a_phone(browse: Opener, recorded_page: Path, bench_page: Path) -> None:
    assert browse(bench_page, width=360).value("document.documentElement.scrollWidth") == 360
    assert browse(recorded_page, width=360).value("document.documentElement.scrollWidth") == 360


@pytest.mark.parametrize("dark", [False, True])
def test_the_page_of_a_bench(browse: Opener, bench_page: Path, dark: bool) -> None:
    tab = browse(bench_page, scripts=not dark, dark=dark)
    quiet(tab, bench_page)
    levels = well_made(tab, 200)
    assert levels == [1] + [2] * (len(levels) - 1)
    assert tab.value("document.querySelectorAll('svg').length") == 5


def test_what_a_screen_reader_is_told(browse: Opener, recorded_page: Path) -> None:
    tab = browse(recorded_page)
    roles: dict[str, list[str]] = {}
    for node in tab.tree():
        role = node.get("role", {}).get("value", "")
        roles.setdefault(role, []).append(node.get("name", {}).get("value", ""))
    pictures = [name for role in ("image", "img", "graphics-document") for name in roles.get(role, [])]
    assert len(pictures) == tab.value("document.querySelectorAll('svg').length") >= 4
    assert all(". " in name for name in pictures)
    assert {"main", "navigation", "banner", "contentinfo"} <= set(roles)
    assert all(roles["table"])
    assert tab.value("document.documentElement.lang") == "en"


def test_it_is_gone_through_by_keyboard(browse: Opener, recorded_page: Path) -> None:
    tab = browse(recorded_page)
    tab.key("Tab")
    assert tab.value("document.activeElement.className") == "skip"
    seen = []
    for _ in range(40):
        tab.key("Tab")
        seen.append(tab.value("document.activeElement.tagName"))
        outline: Any = tab.value("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none"
    # Links, tables that can be scrolled, and what unfolds.
    assert {"A", "DIV", "SUMMARY"} <= set(seen)


def test_hostile_names_stay_names(browse: Opener, tmp_path: Path) -> None:
    for number, text in enumerate(each for each in EVIL if len(each) < 1000):  # what is long is cut: test_html_page.py
        path = tmp_path / f"{number}.html"
        path.write_text(page(evil_report(text), command=text), "utf-8")
        tab = browse(path)
        quiet(tab, path)
        assert tab.value("document.title").startswith("FAIL: ")
        counted = "['script', 'img', 'iframe', '[onerror]'].map(each => document.querySelectorAll(each).length)"
        assert tab.value(counted) == [0, 0, 0, 0]
        assert tab.value("document.querySelectorAll('a').length") > 10
    assert "49" not in tab.value("document.querySelector('h1').textContent")
