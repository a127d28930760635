"""Kinds of devices: those of edgequant, whatever its metadata say, and those of other packages, whatever they are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edgequant.devices import registry
from edgequant.devices.protocol import Kind, Listed
from edgequant.errors import DeviceError, InputError

ROOT = Path(__file__).parents[2]
GOOD = """
from edgequant.devices.local import LocalDevice
from edgequant.devices.protocol import Kind, Listed
class Bench(LocalDevice):
    def __init__(self, uri):
        super().__init__()
        self.uri = uri
KIND = Kind("bench://", "RACK/SLOT", lambda uri, settings: Bench(uri), lambda: [Listed("bench://1/2", "a slot")])
"""


class Elsewhere:
    """Packages of other people, on sys.path with their metadata."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def install(self, package: str, code: str | None, *names: str, attribute: str = "KIND") -> None:
        module = package.replace("-", "_")
        if code is not None:
            (self.folder / f"{module}.py").write_text(code)
        metadata = self.folder / f"{module}-1.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1\n")
        lines = "".join(f"{name} = {module}:{attribute}\n" for name in names)
        (metadata / "entry_points.txt").write_text(f"[{registry.GROUP}]\n{lines}")


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Elsewhere:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    # No server runs there, and none is started.
    monkeypatch.setenv("ADB_SERVER_SOCKET", f"localfilesystem:{tmp_path}/none")
    return Elsewhere(tmp_path)


def broken(uri: str) -> DeviceError:
    with pytest.raises(DeviceError) as caught:
        registry.make_device(uri)
    assert caught.value.code == "DEVICE_KIND_BROKEN"
    assert "other kinds of devices work" in str(caught.value.hint)
    return caught.value


def test_what_is_declared_is_what_there_is() -> None:
    tomllib = pytest.importorskip("tomllib")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"][registry.GROUP] == registry.OWN
    for name in registry.OWN:
        assert registry.load(name).prefix.startswith(f"{name}:")


def test_a_source_tree_without_metadata(tmp_path: Path) -> None:
    code = "import sys; from edgequant.devices.registry import make_device, list_devices\n"
    code += "print([type(make_device(uri)).__name__ for uri in sys.argv[1:]])\n"
    code += "import importlib.metadata as m; assert not m.entry_points(group='edgequant.devices')\n"
    # Everything installed but edgequant itself, whose code comes from the tree.
    folders = [folder for folder in sys.path if folder.endswith("-packages")]
    for number, folder in enumerate(folders):
        (tmp_path / str(number)).mkdir()
        for entry in Path(folder).iterdir():
            if "edgequant" not in entry.name and not entry.name.endswith(".pth"):
                (tmp_path / str(number) / entry.name).symlink_to(entry)
    path = [str(tmp_path / "tree"), *(str(tmp_path / str(number)) for number in range(len(folders)))]
    (tmp_path / "tree").mkdir()
    for name in ("edgequant", "device_scripts"):
        (tmp_path / "tree" / name).symlink_to(ROOT / name)
    uris = ["local:", "ssh://board", "adb://ABC", "emulated:cortex-a76"]
    done = subprocess.run(
        [sys.executable, "-S", "-c", code, *uris],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(path)}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.stdout == "['LocalDevice', 'SshDevice', 'AdbDevice', 'EmulatedDevice']\n", done.stderr


def test_a_kind_of_another_package(elsewhere: Elsewhere) -> None:
    elsewhere.install("good-bench", GOOD, "bench")
    assert registry.make_device("bench://1/2").uri == "bench://1/2"
    assert Listed("bench://1/2", "a slot") in list(registry.list_devices())
    with pytest.raises(InputError) as caught:
        registry.make_device("bench:1")
    assert "Did you mean bench://1?" in str(caught.value.hint)
    assert "bench://RACK/SLOT" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("code", "attribute", "why"),
    [
        (None, "KIND", "No module named"),
        ("import no_such_module", "KIND", "no_such_module"),
        ("raise RuntimeError('it rains')", "KIND", "it rains"),
        ("KIND = 7", "KIND", "it is a int and no Kind"),
        (GOOD, "OTHER", "OTHER"),
    ],
)
def test_one_that_cannot_be_loaded_costs_nobody_else(
    elsewhere: Elsewhere, code: str | None, attribute: str, why: str
) -> None:
    elsewhere.install("bad-bench", code, "bad", attribute=attribute)
    sys.modules.pop("bad_bench", None)
    error = broken("bad://1")
    assert "bad-bench" in error.message
    assert why in error.message
    assert registry.make_device("local:").is_host
    listed = dict(registry.list_devices())
    assert "DEVICE_KIND_BROKEN" in listed["bad:"]
    assert "local:" in listed
    with pytest.raises(InputError, match="there is no 'telnet' device"):
        registry.make_device("telnet://board")


def test_one_that_cannot_list(elsewhere: Elsewhere) -> None:
    elsewhere.install("mute-bench", GOOD.replace('[Listed("bench://1/2", "a slot")]', "1 / 0"), "bench")
    sys.modules.pop("mute_bench", None)
    listed = dict(registry.list_devices())
    assert "ZeroDivisionError" in listed["bench://"]
    assert "local:" in listed


def test_two_of_one_name(elsewhere: Elsewhere) -> None:
    elsewhere.install("bench-one", GOOD, "bench")
    elsewhere.install("bench-two", GOOD, "bench")
    assert "bench-one, bench-two" in broken("bench://1/2").message


def test_nobody_takes_a_name_of_ours(elsewhere: Elsewhere) -> None:
    elsewhere.install("greedy", "KIND = 7", "ssh", "local")
    assert registry.make_device("ssh://board").uri == "ssh://board"
    assert [type(registry.load(name)) for name in registry.OWN] == [Kind] * len(registry.OWN)
