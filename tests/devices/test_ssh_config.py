"""URIs, ~/.ssh/config and known_hosts, without a server; OpenSSH's own `ssh -G` and `ssh-keygen` are the judges."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from edgequant.devices.ssh import SshDevice
from edgequant.devices.ssh_config import Endpoint, SshConfig, SshHost, parse_uri
from edgequant.devices.ssh_known_hosts import find_keys, fingerprint
from edgequant.errors import InputError
from tests.beds.sshd import make_key

pytestmark = pytest.mark.ssh


def resolve(tmp_path: Path, text: str, uri: str) -> SshHost:
    file = tmp_path / "config"
    file.write_text(text)
    return SshConfig(file).resolve(parse_uri(uri))


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("ssh://board", Endpoint("board")),
        ("ssh://Board_7/", Endpoint("Board_7")),
        ("ssh://root@10.0.0.7:2222", Endpoint("10.0.0.7", "root", 2222)),
        ("SSH://me@[fe80::1%25eth0]:22", Endpoint("fe80::1%eth0", "me", 22)),
        ("ssh://first.last%40corp@board", Endpoint("board", "first.last@corp", None)),
    ],
)
def test_uri(uri: str, expected: Endpoint) -> None:
    assert parse_uri(uri) == expected


@pytest.mark.parametrize(
    "uri",
    [
        "ssh://",
        "ssh://user@",
        "ssh://@host",
        "ssh://host:",
        "ssh://host:0",
        "ssh://host:65536",
        "ssh://host:+22",
        "ssh://host:22:22",
        "ssh://host/tmp",
        "ssh://host?x=1",
        "ssh://host#x",
        "ssh://-oProxyCommand=x",
        "ssh://-l@host",
        "ssh://us er@host",
        "ssh://$(id)@host",
        "ssh://ho;st",
        "ssh://[::1",
        "ssh:host",
        "adb://host",
    ],
)
def test_bad_uri(uri: str) -> None:
    with pytest.raises(InputError) as caught:
        SshDevice(uri)
    assert caught.value.code == "DEVICE_URI_INVALID"
    assert caught.value.hint


@pytest.mark.parametrize(
    "uri", ["ssh://me:hunter2@host", "ssh://me:hun/ter2@host:22", "ssh://me:a@hunter2@host", "ssh://:hunter2@host"]
)
def test_password_in_uri_is_refused_and_never_repeated(uri: str) -> None:
    with pytest.raises(InputError) as caught:
        SshDevice(uri)
    error = caught.value
    assert error.code == "DEVICE_URI_INVALID"
    assert "password" in error.message
    assert "hun" not in f"{error} {error.as_dict()} {error!r}"


CONFIG = """
# comment
IdentityFile ~/.ssh/everywhere
Host board b?ard !bxard
    HostName %h.lab.example
    Port = 2200
    User root
    IdentityFile "~/.ssh/board key"
    IdentityFile %d/.ssh/%r@%h
    UserKnownHostsFile /tmp/a /tmp/b
    HostKeyAlias the-board
    ProxyJump gw,ops@second:2022
    ProxyCommand never-used
Host behind
    ProxyCommand nc -X connect %h %p %% %r
Host direct
    ProxyJump none
Host quiet
    ProxyCommand none
Match host *.lab.example
    ConnectTimeout 7
Host *
    ProxyJump default-gw
    User fallback
    HashKnownHosts yes
"""


def test_alias(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    target = resolve(tmp_path, CONFIG, "ssh://board")
    assert (target.host, target.port, target.user) == ("board.lab.example", 2200, "root")
    assert target.identity_files == (
        tmp_path / ".ssh/everywhere",
        tmp_path / ".ssh/board key",
        tmp_path / ".ssh/root@board.lab.example",
    )
    assert target.user_known_hosts == (Path("/tmp/a"), Path("/tmp/b"))
    assert target.known_as == "the-board"
    assert target.proxy_jump == (Endpoint("gw"), Endpoint("second", "ops", 2022))
    assert target.proxy_command is None
    assert target.hash_known_hosts
    assert target.connect_timeout == 7


def test_uri_wins_over_config(tmp_path: Path) -> None:
    target = resolve(tmp_path, CONFIG, "ssh://me@behind:99")
    assert (target.user, target.port) == ("me", 99)
    assert target.proxy_command == "nc -X connect behind 99 % me"
    assert target.known_as == "[behind]:99"


def test_none_ends_the_search_for_a_proxy(tmp_path: Path) -> None:
    for alias in ("direct", "quiet"):
        target = resolve(tmp_path, CONFIG, f"ssh://{alias}")
        assert (target.proxy_jump, target.proxy_command) == ((), None)


@pytest.mark.parametrize("alias", ["board", "bxard", "behind", "direct", "other"])
def test_agrees_with_openssh(tmp_path: Path, alias: str) -> None:
    target = resolve(tmp_path, CONFIG, f"ssh://{alias}")
    output = subprocess.run(
        ["ssh", "-G", "-F", str(tmp_path / "config"), alias], check=True, capture_output=True, text=True
    ).stdout
    options = dict(line.split(" ", 1) for line in output.splitlines())
    assert (target.host, target.port, target.user) == (options["hostname"], int(options["port"]), options["user"])
    assert (options.get("proxyjump", "none") != "none") == bool(target.proxy_jump)


def test_include(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    ssh = tmp_path / ".ssh"
    (ssh / "conf.d").mkdir(parents=True)
    (ssh / "conf.d" / "one").write_text("Host included\n  Port 2222\n")
    (ssh / "config").write_text("Include conf.d/*\nHost after\n  Include conf.d/none\n  Port 3333\n")
    config = SshConfig()
    assert config.resolve(Endpoint("included")).port == 2222
    assert config.resolve(Endpoint("after")).port == 3333
    assert config.resolve(Endpoint("neither")).port == 22


def test_include_of_itself_ends(tmp_path: Path) -> None:
    (tmp_path / "config").write_text(f"Include {tmp_path}/config\n")
    with pytest.raises(InputError) as caught:
        SshConfig(tmp_path / "config")
    assert caught.value.code == "SSH_CONFIG_INVALID"


@pytest.mark.parametrize("text", ["Port many\n", "Host 'x\n", "Host x\nPort\n"])
def test_bad_config(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError) as caught:
        resolve(tmp_path, text, "ssh://x")
    assert caught.value.code == "SSH_CONFIG_INVALID"


def test_missing_config_file(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        SshConfig(tmp_path / "no")
    assert caught.value.code == "SSH_CONFIG_INVALID"


def test_known_hosts_lines(tmp_path: Path) -> None:
    key = " ".join(make_key(tmp_path / "key").with_suffix(".pub").read_text().split()[:2])
    file = tmp_path / "known_hosts"
    file.write_text(
        f"# comment\n\nplain,[plain]:2222 {key} remark\n*.lab,!bad.lab {key}\n@cert-authority *.lab {key}\n"
        f"@revoked gone {key}\nbroken ssh-ed25519\nodd ssh-ed25519 ***\nhashed {key}\n[HASHED]:2200 {key}\n|1|x {key}\n"
    )
    before = {
        "plain": [("", 3)],
        "[plain]:2222": [("", 3)],
        "[plain]:2223": [],
        "a.lab": [("", 4), ("@cert-authority", 5)],
        "bad.lab": [("@cert-authority", 5)],
        "gone": [("@revoked", 6)],
        "odd": [],
    }
    for name, lines in before.items():
        assert [(k.marker, k.line) for k in find_keys([tmp_path / "missing", file], name)] == lines, name
    fingerprints = {fingerprint(k.blob) for k in find_keys([file], "plain")}
    said = subprocess.run(["ssh-keygen", "-lf", f"{tmp_path}/key.pub"], check=True, capture_output=True, text=True)
    assert fingerprints == {said.stdout.split()[1]}
    file.write_text(f"hashed {key}\n[HASHED]:2200 {key}\n")  # it takes no file with broken lines
    subprocess.run(["ssh-keygen", "-H", "-f", str(file)], check=True, capture_output=True)
    assert "hashed" not in file.read_text().lower()
    assert len(find_keys([file], "hashed")) == 1
    assert len(find_keys([file], "[hashed]:2200")) == 1
