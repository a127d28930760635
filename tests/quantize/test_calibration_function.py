"""A Python function of the user's as calibration data, run in a real child process."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgequant.errors import ToolError
from tests.quantize.support import codes, function, load, refused

GOOD = """
    for n in range(1000):
        print("making", n)
        yield {"feat_erb": np.full((1, 1, n + 1, 4), float(n)), "feat_spec": np.ones((1, 2, n + 1, 3)) * n}
"""


def test_a_function_yields_samples_of_several_shapes(tmp_path: Path) -> None:
    found = load(function(tmp_path, GOOD), tmp_path, samples=4)
    assert [case.inputs["feat_erb"].shape[2] for case in found] == [1, 2, 3, 4]
    assert found.read(2).inputs["feat_spec"].dtype == np.float32
    assert "making 3" in (tmp_path / "work" / "calibration.log").read_text()
    assert codes(found) == []


def test_an_endless_function_is_cut_and_that_is_said(tmp_path: Path) -> None:
    text = function(tmp_path, GOOD.replace("range(1000)", "iter(int, 1)"))
    found = load(text, tmp_path)
    assert len(found) == 256
    assert "CALIBRATION_TRUNCATED" in codes(found)


def test_a_function_in_a_module_of_the_current_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A module of the same name as one of edgequant's own files must be the user's.
    data = "{'feat_erb': np.ones((1, 1, 2, 4)) * n, 'feat_spec': np.ones((1, 2, 2, 3)) * n}"
    (tmp_path / "log.py").write_text(f"import numpy as np\nDATA = [{data} for n in range(2)]\n")
    monkeypatch.chdir(tmp_path)
    assert len(load("log:DATA", tmp_path)) == 2


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        ("    yield {'a': 1}\n    raise ValueError('no such corpus')\n", "CALIBRATION_FUNCTION", "no such corpus"),
        ("    import not_installed_anywhere\n", "CALIBRATION_FUNCTION", "not_installed_anywhere"),
        ("    yield [1, 2]\n", "CALIBRATION_FUNCTION", "list"),
        ("    yield {'feat_erb': np.array([object()])}\n", "CALIBRATION_FUNCTION", "feat_erb"),
        ("    sys.exit(3)\n", "CALIBRATION_FUNCTION", "calib.py:6, in make: it called sys.exit(3)"),
        ("    os._exit(0)\n", "CALIBRATION_FUNCTION", "ended the process"),
        ("    sys.exit('no data')\n", "CALIBRATION_FUNCTION", "sys.exit('no data')"),
        ("    raise KeyboardInterrupt\n", "CALIBRATION_FUNCTION", "calib.py:6, in make: KeyboardInterrupt"),
        ("    raise ValueError('two\\nlines')\n", "CALIBRATION_FUNCTION", "ValueError: two lines"),
        ("    return []\n", "CALIBRATION_EMPTY", "no sample"),
        ("    return 7\n", "CALIBRATION_FUNCTION", "returned one int, not several samples"),
        ("    pass\n", "CALIBRATION_FUNCTION", "returned nothing: does it yield its samples?"),
        ("    return {'feat_erb': 1}\n", "CALIBRATION_FUNCTION", "returned one dict"),
        ("    return 'feat_erb'\n", "CALIBRATION_FUNCTION", "text (str)"),
        ("    yield ({}, 1)\n", "CALIBRATION_FUNCTION", "sample 0 is a tuple"),
        ("    yield {1: np.ones(3)}\n", "CALIBRATION_FUNCTION", "the key 1"),
        ("    yield {'feat_erb': [[1], [1, 2]]}\n", "CALIBRATION_FUNCTION", "input 'feat_erb' is a list"),
        ("    yield {'feat_erb': np.ones((1, 1, 2, 4), int), 'feat_spec': np.ones((1, 2, 2, 3))}\n",
         "CALIBRATION_DTYPE", "'feat_erb' is int64, the model takes float32"),
        ("    yield {'feat_erb': np.ones((1, 1, 2, 4))}\n", "CALIBRATION_NAMES", "sample 0"),
        ("    yield {'feat_erb': np.ones((1, 1, 2, 4)) * np.nan, 'feat_spec': np.ones((1, 2, 2, 3))}\n",
         "CALIBRATION_NAN", "sample 0"),
    ],
)  # fmt: skip
def test_functions_that_go_wrong(body: str, code: str, said: str, tmp_path: Path) -> None:
    assert said in str(refused(code, function(tmp_path, body), tmp_path))


def test_an_error_shows_the_users_own_line_and_not_our_frames(tmp_path: Path) -> None:
    body = "    yield {}\n\n\ndef open_all():\n    return [1, 2][5]\n"
    error = refused("CALIBRATION_FUNCTION", function(tmp_path, body).replace(":make", ":open_all"), tmp_path)
    assert "calib.py:10, in open_all: IndexError: list index out of range" in str(error)
    log = (tmp_path / "work" / "calibration.log").read_text()
    assert "return [1, 2][5]" in log
    assert "user_function_worker" not in log


def test_an_error_below_the_users_code_names_both_places(tmp_path: Path) -> None:
    error = refused("CALIBRATION_FUNCTION", function(tmp_path, "    yield np.load('absent.npy')\n"), tmp_path)
    assert "calib.py:6, in make: FileNotFoundError" in str(error)
    assert "raised at" in str(error)


def test_modules_that_cannot_be_imported_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.py").write_text("\n\ndef make(:\n")
    (tmp_path / "lacking.py").write_text("\nimport not_installed_anywhere\n")
    (tmp_path / "other.py").write_text("def lines():\n    yield {}\n")
    assert "broken.py:3: SyntaxError" in str(refused("CALIBRATION_FUNCTION", "broken:make", tmp_path))
    assert "lacking.py:2" in str(refused("CALIBRATION_FUNCTION", "lacking.py:make", tmp_path))
    assert "lacking.py:2" in str(refused("CALIBRATION_FUNCTION", "lacking:make", tmp_path))
    error = refused("CALIBRATION_FUNCTION", "absent_module:make", tmp_path)
    assert "no file or folder of that name" in str(error)
    assert "it has lines" in str(refused("CALIBRATION_FUNCTION", "other:line", tmp_path))


@pytest.mark.parametrize(
    ("head", "says"),
    [("async def make():", "is async"), ("def make(path, n=1):", "needs path: it is called without arguments")],
)
def test_functions_that_cannot_be_called_so(head: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "calib.py").write_text(f"{head}\n    yield {{}}\n")
    assert says in str(refused("CALIBRATION_FUNCTION", f"{tmp_path}/calib.py:make", tmp_path))


@pytest.mark.parametrize(
    "before",
    [
        "os.fork()",
        "os.close(1); os.close(2); sys.stdout = sys.stderr = None",
        "os.write(1, os.urandom(1 << 16))",
        "os.chdir('/')",
        "sys.stdout.write('{\\\"samples\\\": 99}')",
    ],
)
def test_what_a_function_does_beside_does_not_spoil_its_samples(before: str, tmp_path: Path) -> None:
    body = f"    {before}\n" + GOOD.replace("range(1000)", "range(5)").replace('print("making", n)', "pass")
    found = load(function(tmp_path, body), tmp_path)
    assert [case.inputs["feat_erb"].shape[2] for case in found] == [1, 2, 3, 4, 5]


def test_a_class_whose_objects_are_samples(tmp_path: Path) -> None:
    data = "{'feat_erb': np.ones((1, 1, 2, 4)) * n, 'feat_spec': np.ones((1, 2, 2, 3)) * n}"
    (tmp_path / "calib.py").write_text(
        f"import numpy as np\n\n\nclass Data:\n    def __iter__(self):\n        return iter({data} for n in range(3))\n"
    )
    assert len(load(f"{tmp_path}/calib.py:Data", tmp_path)) == 3


def test_a_disk_that_is_full_is_not_the_functions_fault(tmp_path: Path) -> None:
    body = "    import resource\n    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
    body += "    import signal\n    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n" + GOOD
    assert "cannot be kept" in str(refused("CALIBRATION_FUNCTION", function(tmp_path, body), tmp_path))


def test_a_function_that_is_not_there(tmp_path: Path) -> None:
    refused("CALIBRATION_FUNCTION", f"{tmp_path}/nowhere.py:make", tmp_path)
    refused("CALIBRATION_FUNCTION", "no_such_module_at_all:make", tmp_path)
    text = function(tmp_path, GOOD)
    assert "absent" in str(refused("CALIBRATION_FUNCTION", text.replace(":make", ":absent"), tmp_path))


def test_a_function_that_hangs_or_crashes(tmp_path: Path) -> None:
    text = function(tmp_path, "    time.sleep(1000)\n    yield {}\n")
    error = refused("CALIBRATION_TIMEOUT", text, tmp_path, kind=ToolError, timeout=3.0)
    assert "--timeout" in str(error.hint)
    assert "samples=N" in str(error.hint)
    text = function(tmp_path, "    os.kill(os.getpid(), 11)\n")
    assert "SIGSEGV" in str(refused("CALIBRATION_CRASHED", text, tmp_path, kind=ToolError))
