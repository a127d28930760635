"""Work on an emulated CPU: instructions repeat, and what they need is named where it is missing."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from edgequant.errors import DeviceError, InputError
from edgequant.jobs.work import compare, work
from edgequant.work.count import Operator, Work
from edgequant.work.plugin import compiled, qemu_with_plugins
from tests import generated, sources
from tests.cli.command import edgequant


def channels(folder: Path, count: int) -> Path:
    """x [1,8,12,12] -> y [1,8,12,12], with so many channels in between."""
    node, value, weight = generated._node, generated._value, generated._weight
    nodes = [
        node("Conv", ["x", "w1"], ["a"], name="one", kernel_shape=[1, 1]),
        node("Conv", ["a", "w2"], ["y"], name="two", kernel_shape=[1, 1]),
    ]
    weights = [weight("w1", count, 8, 1, 1), weight("w2", 8, count, 1, 1)]
    shape = [1, 8, 12, 12]
    source = generated.save(folder / f"c{count}.onnx", nodes, [value("x", shape)], [value("y", shape)], weights)
    sources.convert(source, folder / f"c{count}.mnn")
    return folder / f"c{count}.mnn"


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="no qemu-of-nobody"):
        qemu_with_plugins("qemu-of-nobody")
    with pytest.raises(DeviceError, match="loads no plugins") as caught:
        qemu_with_plugins("true")
    assert caught.value.code == "WORK_QEMU_MISSING"
    with pytest.raises(DeviceError, match="no C compiler") as caught:
        compiled(tmp_path, "cc-of-nobody")
    assert caught.value.code == "WORK_COMPILER_MISSING"
    with pytest.raises(DeviceError, match="cannot compile the plugin"):
        compiled(tmp_path, "false")
    assert compiled(tmp_path).is_file()
    done = edgequant("work", "m.mnn", "--device", "emulated:cortex-a76", "--most", "1")
    assert (done.code, "--against" in done.err) == (2, True)


def test_only_mnn_files_on_emulated_cpus_are_counted(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="emulated CPUs"):
        work([tmp_path / "m.mnn"], "local:")
    with pytest.raises(InputError, match=r"of \.mnn files"):
        work([generated.small_cnn(tmp_path / "m.onnx")], "emulated:cortex-a76")


def test_two_are_held_against_each_other_by_operator_and_where_names_differ_by_kind() -> None:
    one = Work((1010, 1010, 1011), (Operator("a", "Convolution", 500), Operator("b", "Pooling", 510)))
    other = Work((1000, 1000, 1001), (Operator("a", "Convolution", 490), Operator("b", "Pooling", 510)))
    found = compare(one, other)
    assert found.share == pytest.approx(0.01)
    assert found.sure
    assert found.operators == (("a", "Convolution", 500, 490),)
    assert compare(Work((1010, 1212, 1010), ()), Work((1000, 1200, 1000), ())).sure, "both do more in the second"
    assert not compare(Work((1000, 1020, 990), ()), Work((995, 1000, 990), ())).sure, "as much as pairs differ"
    assert not compare(Work((10001, 10001), ()), Work((10000, 10000), ())).sure
    renamed = Work(one.counted, (Operator("x", "Convolution", 300), Operator("y", "Convolution", 200)))
    assert compare(renamed, other).operators == (
        ("Pooling", "Pooling", 0, 510), ("Convolution", "Convolution", 500, 490),
    )  # fmt: skip


@pytest.mark.nightly
@pytest.mark.arm64
@pytest.mark.timeout(300)
def test_one_percent_more_is_seen_with_one_run_and_the_same_is_the_same(tmp_path: Path) -> None:
    qemu = os.environ.get("EDGEQUANT_TEST_QEMU") or shutil.which("qemu-aarch64")
    assert qemu is not None, "install qemu-user: make system-packages"
    plain, more = channels(tmp_path, 800), channels(tmp_path, 808)
    first, second = work([more, plain], "emulated:cortex-a76", qemu=qemu)
    found = compare(first, second)
    assert found.sure
    assert 0.006 < found.share < 0.014
    assert {each[1] for each in found.operators[:2]} == {"Convolution"}
    (again,) = work([more], "emulated:cortex-a76", qemu=qemu)
    assert abs(again.instructions / first.instructions - 1) < 0.0005, "another process, the same work"
    done = edgequant(
        "work", str(more), "--against", str(plain), "--device", "emulated:cortex-a76", "--qemu", qemu, "--most", "0.5",
        "--json",
    )  # fmt: skip
    assert (done.code, done.json["more_is_sure"]) == (1, True)
    assert len(done.json["models"][0]["operators"]) >= 2
