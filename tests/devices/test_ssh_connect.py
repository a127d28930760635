"""Getting to a real sshd: aliases, jumps, relays, and hosts that do not answer."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from edgequant.deadline import Deadline
from edgequant.devices.ssh import SshDevice
from edgequant.errors import DeviceError, InputError
from tests.beds.sshd import ALIAS, SshServer
from tests.devices.ssh_hosts import device, here, opens, refused

pytestmark = pytest.mark.ssh


def test_alias(sshd: SshServer) -> None:
    assert opens(SshDevice(f"ssh://{ALIAS}", config_path=sshd.config))


def test_plain_uri(sshd: SshServer) -> None:
    it = SshDevice(sshd.uri, config_path=sshd.config, python="/opt/python3")
    assert opens(it)
    assert list(it.python) == ["/opt/python3"]
    assert not it.is_host


# --- getting there ---


def test_proxy_jump(sshd: SshServer, tmp_path: Path) -> None:
    text = here(sshd, ProxyJump="first,second", HostName="localhost", HostKeyAlias="final")
    known = tmp_path / "known"
    known.write_text(sshd.known_hosts.read_text() + f"final {sshd.host_key()}\n")
    text += "Host first second\n" + here(sshd).split("\n", 1)[1]
    text = text.replace(str(sshd.known_hosts), str(known))
    before = sshd.log.count("Accepted publickey")
    assert opens(device(tmp_path, text))
    assert sshd.log.count("Accepted publickey") == before + 3


def test_proxy_jump_checks_the_key_of_each_hop(sshd: SshServer, tmp_path: Path) -> None:
    text = here(sshd, ProxyJump="hop") + "Host hop\n" + here(sshd, UserKnownHostsFile="none").split("\n", 1)[1]
    assert refused(device(tmp_path, text)).code == "HOST_KEY_UNKNOWN"


def test_proxy_jump_to_nowhere(sshd: SshServer, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        text = here(sshd, ProxyJump="hop", Port=taken.getsockname()[1]) + "Host hop\n" + here(sshd).split("\n", 1)[1]
        error = refused(device(tmp_path, text))
    assert error.code == "HOST_UNREACHABLE"
    assert "jump" in error.message


def test_proxy_jump_in_a_circle(sshd: SshServer, tmp_path: Path) -> None:
    error = refused(device(tmp_path, here(sshd, ProxyJump="b") + "Host b\n  ProxyJump here\n"))
    assert isinstance(error, InputError)
    assert "circle" in error.message


def test_proxy_command(sshd: SshServer, tmp_path: Path) -> None:
    relay = f"ssh -F {sshd.config} -W %h:%p {ALIAS}"
    it = device(tmp_path, here(sshd, ProxyCommand=relay))
    assert opens(it)


def test_proxy_command_that_fails(sshd: SshServer, tmp_path: Path) -> None:
    text = here(sshd, ProxyCommand="TOKEN=hunter2 sh -c 'echo the reason >&2; exit 1'")
    error = refused(device(tmp_path, text.replace("TOKEN=hunter2 ", "env TOKEN=hunter2 ")))
    assert error.code == "HOST_UNREACHABLE"
    assert "the reason" in error.message
    assert "hunter2" not in str(error.as_dict())


def test_refused_port(sshd: SshServer, tmp_path: Path) -> None:
    with socket.socket() as taken:  # bound and not listening: refused, and nobody else can take it
        taken.bind(("127.0.0.1", 0))
        error = refused(device(tmp_path, here(sshd, Port=taken.getsockname()[1])))
    assert error.code == "HOST_UNREACHABLE"
    assert "refused" in error.message
    assert "start sshd there, or name its port: ssh://user@host:2222" in str(error.hint)


def test_unknown_name(sshd: SshServer, tmp_path: Path) -> None:
    # Where no name server answers, it takes a while until that is known.
    error = refused(device(tmp_path, here(sshd, HostName="no-such-host.invalid")), seconds=200)
    assert error.code == "HOST_UNREACHABLE"
    assert "resolved" in error.message


def test_no_answer_to_the_connection(sshd: SshServer, tmp_path: Path) -> None:
    # A full accept queue swallows connections, as a firewall or a switched-off board does.
    with socket.socket() as listener, socket.socket() as filler:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        filler.connect(listener.getsockname())
        error = refused(device(tmp_path, here(sshd, Port=listener.getsockname()[1], ConnectTimeout=1)))
    assert error.code == "HOST_UNREACHABLE"
    assert "timeout" in error.message


def test_no_ssh_behind_the_port(sshd: SshServer, tmp_path: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(5)
        error = refused(device(tmp_path, here(sshd, Port=listener.getsockname()[1])), seconds=1)
    assert error.code == "TIMEOUT"


def test_not_open(sshd: SshServer) -> None:
    it = SshDevice(sshd.uri)
    with pytest.raises(DeviceError) as caught:
        it.run(["true"], Deadline(1))
    assert caught.value.code == "NOT_CONNECTED"
    it.close()
    it.close()
