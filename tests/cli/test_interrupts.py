"""Ctrl-C at every moment: 130 or the code that was due, one JSON document at most, and never a traceback."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest

START = """
import os, signal, sys
def press():
    os.kill(os.getpid(), signal.SIGINT)
from edgequant.cli import app, report, run_main
"""
SHOW = ["report", "--schema", "--json"]
REFUSED = ["report", "no/such/folder", "--json"]

# name: what is arranged, the arguments, the exit code
MOMENTS: dict[str, tuple[str, list[str], int]] = {
    "as it begins": (
        "import edgequant.cli.interrupts as i\nwatch = i.watch\ni.watch = lambda: (watch(), press())",
        SHOW,
        130,
    ),
    "while it works": ("show = report.print_json\nreport.print_json = lambda text: (press(), show(text))", SHOW, 130),
    "when all is printed": (
        "show = report.print_json\nreport.print_json = lambda text: (show(text), press())",
        SHOW,
        130,
    ),
    "when the code is known": (
        "run = run_main.run_main\nrun_main.run_main = lambda a: (run(a), press())[0]",
        SHOW,
        130,
    ),
    "while an error is told": (
        "tell = run_main.show_error\nrun_main.show_error = lambda *a, **k: (tell(*a, **k), press())",
        REFUSED,
        130,
    ),
    "while Python's own exit runs": ("import atexit\natexit.register(press)", SHOW, 0),
    "an error was told, and Python's own exit runs": ("import atexit\natexit.register(press)", REFUSED, 2),
    "at the very last": (
        "class Last:\n    def __del__(self, kill=os.kill, me=os.getpid(), number=signal.SIGINT):\n"
        "        kill(me, number)\nlast = Last()",
        SHOW,
        0,
    ),
    "in a destructor, which swallows it": (
        "class Dying:\n    def __del__(self):\n        press()\n"
        "def wait(text):\n    Dying()\n    while True:\n        signal.pause()\nreport.print_json = wait",
        SHOW,
        130,
    ),
}


def run(arranged: str, arguments: list[str]) -> subprocess.CompletedProcess[str]:
    script = f"{START}{arranged}\nsys.argv[0] = 'edgequant'\napp.main()\n"
    return subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, timeout=240)


@pytest.mark.parametrize("moment", MOMENTS)
def test_ctrl_c(moment: str) -> None:
    arranged, arguments, code = MOMENTS[moment]
    done = run(arranged, arguments)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert ("edgequant: interrupted" in done.stderr) == (code == 130)
    if done.stdout:
        json.loads(done.stdout)  # one, not two


def test_ctrl_c_twice() -> None:
    """The second one comes while the first is told."""
    arranged = (
        "report.print_json = lambda text: press()\ntell = run_main._print_json\n"
        "run_main._print_json = lambda error: (tell(error), press())"
    )
    done = run(arranged, SHOW)
    assert done.returncode == 130
    assert "Traceback" not in done.stderr
    assert json.loads(done.stdout)["error"]["code"] == "INTERRUPTED"


def test_what_whoever_starts_it_ignores_stays_ignored() -> None:
    """`nohup edgequant ... &` has to outlive its terminal."""
    arranged = (
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\nshow = report.print_json\n"
        "report.print_json = lambda text: (os.kill(os.getpid(), signal.SIGHUP), show(text))"
    )
    done = run(arranged, SHOW)
    assert done.returncode == 0, done.stderr
    assert "properties" in json.loads(done.stdout)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_cancelled_job_ends_in_the_same_way(number: signal.Signals) -> None:
    done = run(f"report.print_json = lambda text: os.kill(os.getpid(), {int(number)})", SHOW)
    assert done.returncode == 130
    assert json.loads(done.stdout)["error"]["code"] == "INTERRUPTED"


def test_started_as_a_module() -> None:
    done = subprocess.run([sys.executable, "-m", "edgequant", "--version"], capture_output=True, text=True, timeout=240)
    assert (done.returncode, done.stdout.split()[0]) == (0, "edgequant")
