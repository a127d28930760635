"""The phones the benches use: a real adbd in a namespace of this host, and a virtual phone behind it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.harness import CannotRun


@contextmanager
def adb_bed(folder: Path | None = None, *, own_user: bool = False) -> Iterator[Any]:
    """The adb server and adbd of the tests; while it is there, edgequant finds that server and no other.

    folder: the device's files are in there, and it is opened to the device's user.
    own_user: the device's user is this one, so that this Python can be used there.
    """
    with _cannot_run("no adb bed"):
        from tests.beds.adb import running

    before = {name: os.environ.get(name) for name in ("ADB_SERVER_SOCKET", "ANDROID_SERIAL")}
    if folder is not None:
        folder.chmod(0o755)
    context = running(folder, own_user=own_user)
    with _cannot_run("no adb bed"):
        bed = context.__enter__()
    try:
        os.environ["ADB_SERVER_SOCKET"] = bed.spec
        os.environ.pop("ANDROID_SERIAL", None)
        yield bed
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        context.__exit__(None, None, None)


@contextmanager
def phone_vm(bed: Any, folder: Path) -> Iterator[Any]:
    """The virtual ARM64 phone of the tests, booted, its disk as it was made."""
    from tests.beds.vm import Phone, running

    context = running(folder, lambda made, base: Phone(made, base, bed))
    with _cannot_run("no virtual phone"):
        phone = context.__enter__()
    try:
        with _cannot_run("no virtual phone"):
            phone.boot()
        yield phone
    finally:
        context.__exit__(None, None, None)


@contextmanager
def _cannot_run(what: str) -> Iterator[None]:
    """What a bed says where it cannot be, in one line; and what it needs of the system may be missing."""
    import subprocess

    import pytest

    try:
        yield
    except pytest.fail.Exception as error:
        raise CannotRun(f"{what}: {str(error).splitlines()[0]}") from None
    except (OSError, subprocess.SubprocessError) as error:
        raise CannotRun(f"{what}: {error}") from None
