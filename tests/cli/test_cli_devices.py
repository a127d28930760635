"""devices, demo and completion, as a user runs them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.beds.models import ModelByName
from tests.beds.sshd import ALIAS, SshServer
from tests.cli.command import EDGEQUANT, NAMED_SHELL, edgequant
from tests.jobs.support import ssh_home
from tests.waiting import LONG


def test_list(tmp_path: Path) -> None:
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "config").write_text("Host board other*\n  HostName 192.0.2.7\n  User pi\n")
    # No adb server of this machine is asked, or started.
    environment = {"HOME": str(tmp_path), "ADB_SERVER_SOCKET": f"localfilesystem:{tmp_path}/none/socket"}
    done = edgequant("devices", "list", "--json", **environment)
    assert done.code == 0
    uris = [entry["uri"] for entry in done.json["devices"]]
    assert (uris[:2], uris[-1]) == (["local:", "ssh://board"], "emulated:cortex-a76")
    assert "pi@192.0.2.7" in done.json["devices"][1]["what"]
    assert edgequant("devices", "list", **environment).out.startswith("device")


def test_probe_doctor_and_clean_of_this_host(tmp_path: Path) -> None:
    work = ("--work-dir", str(tmp_path / "work"))
    probe = edgequant("devices", "probe", "local:", *work, "--json")
    assert probe.code == 0
    assert probe.json["arch"] == os.uname().machine
    assert probe.json["mnn"]
    assert probe.json["cores"] >= 1
    assert probe.json["work_dir"] == str(tmp_path / "work")
    assert probe.json["error"] is None
    for key in ("thermal", "battery", "soc", "android"):
        assert (probe.json[key] is None) == (key in probe.json["why_null"]), key
    shown = edgequant("devices", "probe", "local:", *work).out
    assert "not known: there is no getprop" not in shown  # a host is no phone, and nobody has to be told
    for line in ("CPU", "  clusters", "  kernels", "  free there"):
        assert f"\n{line}" in shown
    doctor = edgequant("devices", "doctor", "local:", *work, "--json")
    assert doctor.code == 0
    assert doctor.json["usable"] is True
    assert [check["name"] for check in doctor.json["checks"]][:3] == ["connection", "architecture", "work directory"]
    assert "local: can be used" in doctor.err
    clean = edgequant("devices", "clean", "local:", *work, "--json")
    assert clean.code == 0
    assert clean.json["freed_bytes"] > 10_000
    assert not (tmp_path / "work").exists()


def test_doctor_of_a_host_that_is_not_there(closed_port: int, tmp_path: Path) -> None:
    uri = f"ssh://127.0.0.1:{closed_port}"
    done = edgequant("devices", "doctor", uri, "--json", HOME=str(tmp_path))
    probe = edgequant("devices", "probe", uri, "--json", HOME=str(tmp_path))
    assert done.code == 3
    checks = {check["name"]: check for check in done.json["checks"]}
    assert checks["connection"]["status"] == "fail"
    assert checks["connection"]["fix"]
    assert checks["runtime"]["status"] == checks["work directory"]["status"] == "skipped"
    assert f"{uri} cannot be used" in done.err
    assert probe.code == 3
    assert probe.json["error"]["code"] == "HOST_UNREACHABLE"
    assert probe.json["error"]["hint"]


def test_probe_where_no_runner_can_be_started(tmp_path: Path) -> None:
    arguments = ("devices", "probe", "local:", "--work-dir", str(tmp_path / "work"), "--python", "/no/python")
    done = edgequant(*arguments, "--json")
    assert done.code == 3
    assert done.json["arch"] == os.uname().machine
    assert done.json["mnn"] is None
    assert done.json["why_null"]["mnn"] == "MNN could not be asked: PYTHON_MISSING"
    assert done.json["error"]["code"] == "PYTHON_MISSING"
    shown = edgequant(*arguments)
    assert shown.code == 3
    assert os.uname().machine in shown.out
    assert "PYTHON_MISSING" in shown.err


@pytest.mark.slow
@pytest.mark.ssh
def test_devices_over_ssh(sshd: SshServer, tmp_path: Path) -> None:
    environment = ssh_home(sshd, tmp_path)
    work = ("--work-dir", str(tmp_path / "work"))
    python = ("--python", sys.executable)
    probe = edgequant("devices", "probe", f"ssh://{ALIAS}", *work, *python, "--json", **environment)
    assert probe.code == 0, probe.err
    assert probe.json["arch"] == os.uname().machine
    doctor = edgequant("devices", "doctor", f"ssh://{ALIAS}", *work, *python, **environment)
    assert doctor.code == 0
    assert f"ssh://{ALIAS} can be used" in doctor.out
    missing = edgequant("devices", "doctor", f"ssh://{ALIAS}", *work, "--python", "/no/python", **environment)
    assert missing.code == 3
    assert "PYTHON_MISSING" in missing.out
    assert "-> " in missing.out
    clean = edgequant("devices", "clean", f"ssh://{ALIAS}", *work, **environment)
    assert clean.code == 0
    assert not (tmp_path / "work").exists()


@pytest.mark.ssh
def test_accepting_a_host_key_from_the_command_line(sshd: SshServer, tmp_path: Path) -> None:
    known = tmp_path / "known"
    config = sshd.config.read_text().replace(str(sshd.known_hosts), str(known))
    environment = ssh_home(sshd, tmp_path, config=config)
    arguments = ("devices", "clean", f"ssh://{ALIAS}", "--work-dir", str(tmp_path / "work"))
    refused = edgequant(*arguments, **environment)
    assert refused.code == 3
    assert "HOST_KEY_UNKNOWN" in refused.err
    assert "--accept-new-host-key" in refused.err
    assert not known.exists()
    assert edgequant(*arguments, "--accept-new-host-key", **environment).code == 0
    assert known.exists()
    assert edgequant(*arguments, **environment).code == 0


def test_demo(real_model: ModelByName, tmp_path: Path) -> None:
    real_model("enc")  # so that nothing has to be fetched
    done = edgequant("demo", "--json", "--run-dir", str(tmp_path / "run"))
    assert done.code == 0, done.err
    assert [run["variant"] for run in done.json["runs"]] == ["dynamic:8", "dynamic:8,hqq"]
    assert "edgequant verify MODEL" in done.err
    assert "dynamic:8,hqq" in (tmp_path / "run" / "report.html").read_text()


def test_demo_on_a_device_that_is_not_there(real_model: ModelByName, closed_port: int, tmp_path: Path) -> None:
    real_model("enc")
    uri = f"ssh://127.0.0.1:{closed_port}"
    done = edgequant("demo", "--device", uri, "--json", "--run-dir", str(tmp_path / "run"))
    assert done.code == 3
    assert {run["error"]["code"] for run in done.json["runs"]} == {"HOST_UNREACHABLE"}


def test_completion_is_installed_and_completes(tmp_path: Path) -> None:
    done = edgequant("--install-completion", "bash", HOME=str(tmp_path), **NAMED_SHELL)
    assert done.code == 0, done
    scripts = [file for file in tmp_path.rglob("*") if file.is_file() and "edgequant" in file.read_text()]
    assert scripts
    words = {"COMP_WORDS": "edgequant ver", "COMP_CWORD": "1", "_EDGEQUANT_COMPLETE": "complete_bash"}
    asked = subprocess.run([EDGEQUANT], env={**os.environ, **words}, capture_output=True, text=True, timeout=4 * LONG)
    assert "verify" in asked.stdout
