"""The page of an acceptance in a real browser: eight devices, as a release meeting looks at it."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgequant.judge.verdict import Verdict
from edgequant.report.html.acceptance import to_html
from tests.beds.browser import Opener
from tests.judge.releases import Release, facts, generated, spec_of
from tests.report.test_acceptance_forms import BROKEN, SOUND
from tests.report.test_html_browser import quiet, well_made

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def matrix_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six models, two variants, eight devices; every third trial fails, every seventh was not run."""
    spec = spec_of(
        ["y:sqnr_db >= 15", "cosine >= 0.99", "latency_ms.p50 <= 12", "latency_ms.load <= 8", "size_mb <= 10"],
        models={f"speech-model-{n}": f"m{n}.onnx" for n in range(6)}, variants=["dynamic:8", "fp16"],
        devices={"phone": "adb:0123456789ABCDEF", **{f"board{n}": f"ssh://board-{n}.example" for n in range(7)}},
    )  # fmt: skip
    attempts = {
        key: [] if number % 7 == 6 else [
            facts(key, Verdict.PASS if number % 3 else Verdict.FAIL, facts=SOUND if number % 3 else BROKEN,
                  folder=f"trials/{number}")
        ]
        for number, key in enumerate(spec.trials())
    }  # fmt: skip
    path = tmp_path_factory.mktemp("matrix") / "matrix.html"
    path.write_text(to_html(Release(spec, attempts).report(), "runs/x"), "utf-8")
    return path


@pytest.fixture(scope="module")
def small_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("small") / "small.html"
    path.write_text(to_html(generated(3).report(), "runs/x"), "utf-8")
    return path


@pytest.mark.parametrize("dark", [False, True])
def test_a_matrix_of_many(browse: Opener, matrix_page: Path, dark: bool) -> None:
    assert matrix_page.stat().st_size <= 2 << 20
    tab = browse(matrix_page, scripts=not dark, dark=dark)
    quiet(tab, matrix_page)
    well_made(tab, 300)


def test_as_narrow_as_a_phone_and_open_within_a_second(browse: Opener, matrix_page: Path, small_page: Path) -> None:
    times = "(([e]) => e.loadEventEnd - e.responseEnd)(performance.getEntriesByType('navigation'))"
    for path in (matrix_page, small_page):
        tab = browse(path, width=360)
        assert tab.value("document.documentElement.scrollWidth") == 360
        assert 0 < min(tab.value(times), *(browse(path).value(times) for _ in range(2))) < 1000


def test_it_is_gone_through_by_keyboard(browse: Opener, matrix_page: Path) -> None:
    tab = browse(matrix_page)
    tab.key("Tab")
    assert tab.value("document.activeElement.className") == "skip"
    seen = set()
    for _ in range(30):
        tab.key("Tab")
        seen.add(tab.value("document.activeElement.tagName"))
        assert tab.value("getComputedStyle(document.activeElement).outlineStyle") != "none"
    assert {"A", "DIV"} <= seen
