"""What is no regular file: never replaced, never waited for."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from edgequant.archive.open import open_run
from edgequant.cases.load import save_npz
from edgequant.errors import InputError
from edgequant.files import append, atomic_write, open_lock, read_bounded, sha256_of
from edgequant.jobs.overwriting import refuse_overwriting, refuse_table
from edgequant.pack.lock import read_lock
from edgequant.quantize.recipe import Recipe
from edgequant.report.read import load
from edgequant.spec.file import load_spec

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root makes device nodes")
SOON_S = 20.0


@pytest.fixture
def null(tmp_path: Path) -> Path:
    path = tmp_path / "null"
    os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    return path


@pytest.fixture
def zero(tmp_path: Path) -> Path:
    path = tmp_path / "zero"
    os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))
    return path


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path


@AS_ROOT
def test_a_device_node_is_written_to_and_stays(null: Path) -> None:
    for path in (null, null.with_name("link")):
        if path is not null:
            path.symlink_to(null)
        with atomic_write(path) as stream:
            stream.write(b"x" * 100)
        save_npz(path, {})
    assert stat.S_ISCHR(null.stat().st_mode)
    assert sorted(each.name for each in null.parent.iterdir()) == ["link", "null"]


@AS_ROOT
def test_a_disk_is_neither_replaced_nor_written_to(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    os.mknod(disk, stat.S_IFBLK | 0o600, os.makedev(7, 200))
    with pytest.raises(OSError, match="neither a file nor a pipe"), atomic_write(disk):
        pass
    with pytest.raises(InputError, match="not written to"):
        refuse_table(disk, [])
    assert stat.S_ISBLK(disk.stat().st_mode)


def test_links_are_followed_and_stay(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    link = tmp_path / "link"
    link.symlink_to("there/file")
    for text in (b"first", b"second"):  # to what is not there yet, and to what is
        with atomic_write(link) as stream:
            stream.write(text)
        assert link.is_symlink()
        assert (tmp_path / "there/file").read_bytes() == text
    link.unlink()
    link.symlink_to(link)
    with pytest.raises(OSError) as found, atomic_write(link):
        pass
    assert found.value.errno == errno.ELOOP


def test_a_pipe_gets_all_or_nothing_and_one_that_nobody_reads_is_an_error(fifo: Path) -> None:
    with pytest.raises(OSError, match="nobody reads"), atomic_write(fifo) as stream:
        stream.write(b"x")
    reader = subprocess.Popen([sys.executable, "-c", f"print(len(open({str(fifo)!r}, 'rb').read()))"],
                              stdout=subprocess.PIPE)  # fmt: skip
    end = time.monotonic() + SOON_S
    while time.monotonic() < end:
        try:
            with atomic_write(fifo) as stream:
                stream.write(b"x" * 300_000)
            break
        except OSError:
            continue  # the reader is not there yet
    assert reader.communicate(timeout=SOON_S)[0].strip() == b"300000"
    assert stat.S_ISFIFO(fifo.stat().st_mode)


def test_what_stdout_goes_into_is_not_replaced(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from edgequant.files import atomic_write\n"
        "print('before', flush=True)\n"
        "with atomic_write(Path('/dev/stdout')) as stream: stream.write(b'table\\n')\n"
        "print('after')"
    )
    out = tmp_path / "out"
    with out.open("wb") as file:
        subprocess.run([sys.executable, "-c", code], stdout=file, check=True, timeout=SOON_S)
    assert out.read_bytes() == b"before\ntable\nafter\n"
    piped = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True, timeout=SOON_S)
    assert piped.stdout == b"before\ntable\nafter\n"


def test_a_pipe_is_read_to_its_end_and_not_waited_for_for_ever(fifo: Path) -> None:
    writer = threading.Thread(target=lambda: fifo.write_bytes(b"variants: [fp16]\n"))
    writer.start()
    assert load_spec(fifo).variants == ["fp16"]
    writer.join()
    start = time.monotonic()
    with pytest.raises(OSError) as found:
        read_bounded(fifo, 100, seconds=0.2)
    assert found.value.errno == errno.ETIMEDOUT
    assert time.monotonic() - start < SOON_S


def test_a_drip_does_not_extend_the_time(fifo: Path) -> None:
    # A writer that never closes and never stops: each byte comes in time, all of them never do.
    code = "import sys, time\nwith open(sys.argv[1], 'wb', 0) as f:\n while True: f.write(b'#'); time.sleep(0.05)"
    dripping = subprocess.Popen([sys.executable, "-c", code, str(fifo)], stderr=subprocess.DEVNULL)
    try:
        start = time.monotonic()
        with pytest.raises(OSError) as found:
            read_bounded(fifo, 1 << 20, seconds=1.0)
        assert found.value.errno == errno.ETIMEDOUT
        assert time.monotonic() - start < SOON_S
    finally:
        dripping.kill()
        dripping.wait()


@AS_ROOT
def test_an_endless_device_is_named_by_every_reader(zero: Path, tmp_path: Path) -> None:
    readers = {
        "SPEC_INVALID": load_spec,
        "REPORT_INVALID": load,
        "RECIPE_UNREADABLE": Recipe.read,
        "PACK_LOCK_INVALID": read_lock,
    }
    for code, read in readers.items():
        with pytest.raises(InputError) as found:
            read(zero)
        assert found.value.code == code
    (tmp_path / "run").mkdir()
    (tmp_path / "run/plan.json").symlink_to(zero)
    with pytest.raises(InputError) as found:
        open_run(tmp_path / "run")
    assert found.value.code == "RUN_INVALID"
    with pytest.raises(OSError, match="not a file"):
        sha256_of(zero)


def test_nothing_is_added_to_a_pipe(fifo: Path) -> None:
    with pytest.raises(OSError):
        append(fifo, b"x")
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    with pytest.raises(OSError, match="not a file"):
        open_lock(fifo)
    os.close(reader)


@AS_ROOT
def test_outputs_may_be_a_device_and_never_a_socket_a_loop_or_no_name(null: Path, tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(b"x")
    refuse_table(null, [model])
    refuse_overwriting(null, model, "the model")
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    for path in (loop, tmp_path / ("n" * 300), Path("with\0nul")):
        with pytest.raises(InputError) as found:
            refuse_table(path, [model])
        assert found.value.code == "OUTPUT_INVALID"
        with pytest.raises(InputError) as found:
            refuse_overwriting(path, model, "the model")
        assert found.value.code == "OUTPUT_INVALID"
