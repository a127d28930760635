"""Real conversions of real models, and every way they can go wrong."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from edgequant import zoo
from edgequant.archive.types import Artifact
from edgequant.errors import EdgequantError, InputError, ToolError
from edgequant.quantize.convert import convert, converter_flags
from edgequant.quantize.work import work_dir
from edgequant.spec import Variant
from tests import generated


@pytest.fixture(scope="session")
def enc() -> Path:
    return zoo.fetch("enc")


def make(source: Path, variant: str, out: Path, **options: object) -> Artifact:
    return convert(source, Variant.parse(variant), out, log_dir=out.parent / "logs", **options)  # type: ignore[arg-type]


def left_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"logs"}


def fails(code: str, kind: type[EdgequantError], *args: object, **options: object) -> EdgequantError:
    with pytest.raises(kind) as caught:
        make(*args, **options)  # type: ignore[arg-type]
    assert caught.value.code == code, caught.value.as_dict()
    return caught.value


def test_every_variant_of_a_real_model_is_smaller_as_it_should_be_and_different(enc: Path, tmp_path: Path) -> None:
    variants = ["float", "fp16", *(f"weight:{bits}" for bits in range(2, 9))]
    variants += [
        "weight:4,sym",
        "weight:4,hqq",
        "weight:4,block=32",
        "weight:4,block=32,sym",
        "weight:4,block=64,hqq",
    ]
    made = {text: make(enc, text, tmp_path / f"{number}.mnn") for number, text in enumerate(variants)}
    size = {text: model.size for text, model in made.items()}
    assert size["fp16"] < 0.55 * size["float"]
    assert size["weight:8"] < 0.4 * size["float"]
    assert size["weight:4"] < 0.3 * size["float"]
    assert [size[f"weight:{bits}"] for bits in range(2, 9)] == sorted({size[f"weight:{bits}"] for bits in range(2, 9)})
    assert size["weight:4,sym"] < size["weight:4"]  # zero points cost room
    assert size["weight:4,block=32"] > size["weight:4"]
    assert len({model.sha256 for model in made.values()}) == len(variants)
    for text, model in made.items():
        assert model.path.stat().st_size == model.size
        assert hashlib.sha256(model.path.read_bytes()).hexdigest() == model.sha256
        layers = (0, 15) if text in ("float", "fp16") else (15, 0)
        assert (model.quantized_layers, model.float_layers) == layers
    assert made["float"].warnings == ()  # that it has subgraphs is told by who reads the source
    assert any("layers cannot use the block" in warning for warning in made["weight:4,block=32"].warnings)
    assert left_in(tmp_path) == {f"{number}.mnn" for number in range(len(variants))}


@pytest.mark.parametrize("name", ["erb_dec", "df_dec", "ppocr_cls"])
def test_other_real_models(name: str, tmp_path: Path) -> None:
    source = zoo.fetch(name)
    full, small = make(source, "float", tmp_path / "f.mnn"), make(source, "weight:8", tmp_path / "q.mnn")
    assert small.size < 0.5 * full.size
    assert small.quantized_layers == full.float_layers > 0


@pytest.mark.parametrize("text", ["float", "weight:8", "weight:4,block=32,hqq"])
def test_the_same_bytes_every_time_wherever_it_is(enc: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    copy = Path(shutil.copy(enc, tmp_path / "elsewhere" / "copy.onnx"))
    first = make(enc, text, tmp_path / "a.mnn")
    second = make(copy, text, tmp_path / "elsewhere" / "b.mnn")
    assert first.sha256 == second.sha256


def test_dynamic_is_the_same_file_as_weight(enc: Path, tmp_path: Path) -> None:
    made = [make(enc, text, tmp_path / f"{text[:3]}.mnn").sha256 for text in ("weight:8", "dynamic:8")]
    assert made[0] == made[1]


def test_different_models_have_different_ids(enc: Path, tmp_path: Path) -> None:
    ids = set()
    for variant in ("float", "weight:8", "weight:4"):
        out = make(enc, variant, tmp_path / f"{variant[-1]}.mnn").path
        code = "import sys, MNN; print(MNN.get_model_uuid(sys.argv[1]))"
        done = subprocess.run([sys.executable, "-c", code, out], capture_output=True, text=True, check=True)
        ids.add(done.stdout.split()[-1])
    assert len(ids) == 3
    assert all(len(one) == 36 for one in ids)


def test_flags_never_let_the_converter_choose() -> None:
    assert converter_flags(Variant.parse("weight:8")) == ["--weightQuantBits", "8", "--weightQuantAsymmetric=1"]
    assert converter_flags(Variant.parse("weight:8,asym")) == converter_flags(Variant.parse("weight:8"))
    assert "--weightQuantAsymmetric=0" in converter_flags(Variant.parse("weight:8,sym"))
    assert converter_flags(Variant.parse("dynamic:4,hqq")) == ["--weightQuantBits", "4", "--hqq"]


def test_a_model_without_weights_says_it_stays_float(tmp_path: Path) -> None:
    source = generated.many_outputs(tmp_path / "m.onnx", 3)
    made = make(source, "weight:8", tmp_path / "m.mnn")
    assert made.quantized_layers == 0
    assert any("stays float" in warning for warning in made.warnings)


def test_from_mnn(enc: Path, tmp_path: Path) -> None:
    full = make(enc, "float", tmp_path / "f.mnn")
    copy = make(full.path, "float", tmp_path / "copy.mnn")
    assert copy.path.read_bytes() == full.path.read_bytes()
    direct, indirect = make(enc, "weight:8", tmp_path / "d.mnn"), make(full.path, "weight:8", tmp_path / "i.mnn")
    assert direct.sha256 == indirect.sha256
    for variant in ("weight:8", "weight:4", "fp16"):
        fails("ALREADY_QUANTIZED", InputError, direct.path, variant, tmp_path / "x.mnn")
    half = make(enc, "fp16", tmp_path / "h.mnn")
    fails("ALREADY_QUANTIZED", InputError, half.path, "weight:8", tmp_path / "x.mnn")
    assert any("no float reference" in text for text in make(direct.path, "float", tmp_path / "c.mnn").warnings)


def test_per_layer_parameters_reach_the_converter(enc: Path, tmp_path: Path) -> None:
    make(enc, "weight:8", tmp_path / "a.mnn", extra_flags=["--compressionParamsFile", str(tmp_path / "guide.json")])
    guide = json.loads((tmp_path / "guide.json").read_text())
    layers = guide["algo"][0]["quantParams"]["layer"]
    assert len(layers) == 15
    layers[0]["weight"][0]["bits"] = 0
    mixed = make(enc, "weight:8", tmp_path / "b.mnn", parameters=guide)
    assert (mixed.quantized_layers, mixed.float_layers) == (14, 1)
    fails("PARAMETERS_REJECTED", ToolError, enc, "weight:8", tmp_path / "c.mnn", parameters={"algo": "text"})


def test_external_data_is_read_from_beside_the_model(tmp_path: Path) -> None:
    source = generated.external_data(tmp_path / "e.onnx")
    inside = tmp_path / "i.onnx"
    onnx.save(onnx.load(source), inside)
    outside = make(source, "float", tmp_path / "e.mnn")
    assert outside.sha256 == make(inside, "float", tmp_path / "i.mnn").sha256
    (tmp_path / "weights.bin").write_bytes((tmp_path / "weights.bin").read_bytes()[:-40])
    fails("MODEL_TRUNCATED", InputError, source, "float", tmp_path / "e.mnn")
    (tmp_path / "weights.bin").unlink()
    fails("MODEL_EXTERNAL_DATA_MISSING", InputError, source, "float", tmp_path / "e.mnn")
    assert hashlib.sha256((tmp_path / "e.mnn").read_bytes()).hexdigest() == outside.sha256


ODD = [
    "with space",
    "-f",
    "--MNNModel=x",
    "quo'te\"s",
    "ünï-模型-🎛",
    "new\nline",
    "back\\slash",
    "$(x);`y`|&",
    "%s%n",
    "x" * 200,
]


@pytest.mark.parametrize("name", [*ODD, os.fsdecode(b"latin-\xe9")], ids=ascii)
def test_odd_file_names(name: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    folder.mkdir()
    source = generated.external_data(folder / f"{name}.onnx")
    plain = generated.external_data(tmp_path / "plain.onnx")
    made = make(source, "float", folder / f"{name}.mnn")
    assert made.path == folder / f"{name}.mnn"
    assert made.sha256 == make(plain, "float", tmp_path / "plain.mnn").sha256
    assert left_in(folder) == {f"{name}.onnx", "weights.bin", f"{name}.mnn"}


def test_relative_paths(enc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(enc, "m.onnx")
    made = convert(Path("m.onnx"), Variant.parse("float"), Path("m.mnn"), log_dir=Path("logs"))
    assert (tmp_path / "m.mnn").stat().st_size == made.size


BAD = {
    "empty": ("onnx", lambda whole: b""),
    "cut": ("onnx", lambda whole: whole[: len(whole) // 2]),
    "noise": ("onnx", lambda whole: hashlib.shake_128(b"x").digest(100_000)),
    "text": ("onnx", lambda whole: b"hello\n"),
    "noise-mnn": ("mnn", lambda whole: hashlib.shake_128(b"y").digest(100_000)),
    "noise-tflite": ("tflite", lambda whole: b"\x1c\0\0\0TFL3" + hashlib.shake_128(b"z").digest(10_000)),
    "noise-tf": ("tf", lambda whole: hashlib.shake_128(b"w").digest(10_000)),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_sources_are_bad_input_and_leave_the_old_output(enc: Path, tmp_path: Path, kind: str) -> None:
    format, spoil = BAD[kind]
    source = tmp_path / f"bad.{'pb' if format == 'tf' else format}"
    source.write_bytes(spoil(enc.read_bytes()))
    (tmp_path / "out.mnn").write_text("old")
    with pytest.raises(InputError):
        make(source, "weight:8", tmp_path / "out.mnn")
    assert (tmp_path / "out.mnn").read_text() == "old"
    assert left_in(tmp_path) == {source.name, "out.mnn"}


def test_every_cut_of_an_mnn_is_refused(enc: Path, tmp_path: Path) -> None:
    whole = make(enc, "weight:8", tmp_path / "w.mnn").path.read_bytes()
    for share in range(1, 20):
        (tmp_path / "cut.mnn").write_bytes(whole[: len(whole) * share // 20])
        with pytest.raises(InputError):
            make(tmp_path / "cut.mnn", "float", tmp_path / "x.mnn")
    assert not (tmp_path / "x.mnn").exists()


def unknown_ops(path: Path) -> Path:
    nodes = [
        helper.make_node("Bogus", ["x"], ["a"], domain="my.own"),
        helper.make_node("Quux", ["a"], ["b"], domain="my.own"),
        helper.make_node("Relu", ["b"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 8]) for name in "xy"]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:])
    opsets = [helper.make_opsetid("", 14), helper.make_opsetid("my.own", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


def test_unsupported_operators_are_named(tmp_path: Path) -> None:
    error = fails("OP_UNSUPPORTED", InputError, unknown_ops(tmp_path / "u.onnx"), "float", tmp_path / "u.mnn")
    assert error.evidence["ops"] == ["ONNX::Bogus", "ONNX::Quux"]
    assert "ONNX::Bogus, ONNX::Quux" in str(error)
    assert left_in(tmp_path) == {"u.onnx"}


def test_wrong_use(enc: Path, tmp_path: Path) -> None:
    fails("MODEL_NOT_FOUND", InputError, tmp_path / "no.onnx", "float", tmp_path / "x.mnn")
    fails("OUTPUT_NOT_WRITABLE", InputError, enc, "float", tmp_path)
    fails("OUTPUT_NOT_WRITABLE", InputError, enc, "float", Path("/proc/nowhere/x.mnn"))
    full = make(enc, "float", tmp_path / "f.mnn")
    fails("OUTPUT_IS_SOURCE", InputError, full.path, "weight:8", full.path)
    fails("CONVERTER_BAD_OUTPUT", ToolError, enc, "float", tmp_path / "s.mnn", extra_flags=["--saveExternalData"])
    assert left_in(tmp_path) == {"f.mnn"}


def test_the_source_is_only_read(enc: Path, tmp_path: Path) -> None:
    source = Path(shutil.copy(enc, tmp_path / "m.onnx"))
    before = (source.read_bytes(), source.stat())
    make(source, "weight:8", tmp_path / "m.mnn")
    assert (source.read_bytes(), source.stat().st_mtime_ns) == (before[0], before[1].st_mtime_ns)


def test_timeout_and_memory_limit_are_named_and_leave_the_old_output(enc: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.mnn"
    out.write_text("old")
    fails("CONVERTER_TIMEOUT", ToolError, enc, "float", out, timeout=0.001)
    source = generated.big_mlp(tmp_path / "big.onnx")
    error = fails("CONVERTER_OUT_OF_MEMORY", ToolError, source, "float", out, memory_limit=12 << 20)
    assert "12 MB" in str(error)
    assert left_in(tmp_path) == {"out.mnn", "big.onnx"}
    assert out.read_text() == "old"


WAITING = """
import sys
from pathlib import Path
from edgequant.quantize import convert as module
from edgequant.spec import Variant
def stay(*_, **__):  # the converter's place is taken by a command that never ends
    from edgequant.quantize.child import run_child
    code = "open(" + repr(sys.argv[3]) + ", 'w').close(); import signal; signal.pause()"
    return run_child([sys.executable, "-c", code], log=Path(sys.argv[2]).with_name("log"), timeout=100)
module.run_child = stay
module.convert(Path(sys.argv[1]), Variant.parse("weight:8"), Path(sys.argv[2]),
               log_dir=Path(sys.argv[2]).parent / "logs")
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_conversion_leaves_nothing(enc: Path, tmp_path: Path, number: signal.Signals) -> None:
    out, fifo = tmp_path / "o" / "out.mnn", tmp_path / "fifo"
    out.parent.mkdir()
    out.write_text("old")
    os.mkfifo(fifo)
    process = subprocess.Popen([sys.executable, "-c", WAITING, enc, out, fifo], stderr=subprocess.PIPE)
    fifo.read_text()  # until the child runs
    assert any(name.startswith(".edgequant-convert-") for name in left_in(out.parent))
    process.send_signal(number)
    process.communicate(timeout=60)
    if number == signal.SIGKILL:
        # Nobody could clean up: the next conversion does.
        make(enc, "float", out.parent / "other.mnn")
        (out.parent / "other.mnn").unlink()
    assert left_in(out.parent) == {"out.mnn", "log"}
    assert out.read_text() == "old"


def test_the_directory_of_a_living_process_stays(enc: Path, tmp_path: Path) -> None:
    with work_dir(tmp_path) as work:
        make(enc, "float", tmp_path / "x.mnn")
        assert work.is_dir()
    assert left_in(tmp_path) == {"x.mnn"}


ON_SMALL_DISK = """
import json, subprocess, sys
from pathlib import Path
from edgequant.errors import EdgequantError
from edgequant.quantize.convert import convert
from edgequant.spec import Variant
disk = Path(sys.argv[2])
found = {}
for kilobytes in map(int, sys.argv[4:]):
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "none", disk], check=True)
    (disk / "out.mnn").write_text("old")
    try:
        variant, logs = Variant.parse("weight:8"), Path(sys.argv[3])
        made = convert(Path(sys.argv[1]), variant, disk / "out.mnn", log_dir=logs)
        found[kilobytes] = made.sha256
    except EdgequantError as error:
        found[kilobytes] = error.code
        assert (disk / "out.mnn").read_text() == "old"
    assert [path.name for path in disk.iterdir()] == ["out.mnn"]
    subprocess.run(["umount", disk], check=True)
print(json.dumps(found))
"""


def test_a_full_disk_is_named_and_never_spoils_a_model(tmp_path: Path) -> None:
    """On disks of many sizes, also where the result (5 MB) would fit, but not the float weights (20 MB) put there."""
    source = generated.big_mlp(tmp_path / "mlp.onnx")
    (tmp_path / "disk").mkdir()
    sizes = [64, 1000, 4000, 5000, 5500, 8000, 12000, 16000, 19000, 20000, 22000, 24000, 24500, 25000, 40000]
    command = [sys.executable, "-c", ON_SMALL_DISK, source, tmp_path / "disk", tmp_path / "logs", *map(str, sizes)]
    # A mount namespace of its own: the disk goes with the process, and no privilege is needed where user
    # namespaces are allowed.
    unshare = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--mount"]
    done = subprocess.run([*unshare, *command], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    good = make(source, "weight:8", tmp_path / "good.mnn").sha256
    assert set(found.values()) == {"DISK_FULL", good}
    codes = list(found.values())
    assert codes == sorted(codes, key=lambda code: code == good)  # too small up to some size, good from there on
    assert codes[-1] == good
    assert found["8000"] == "DISK_FULL"


def test_a_read_only_directory(enc: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sealed"
    folder.mkdir()
    if os.geteuid() != 0:
        folder.chmod(0o555)
        fails("OUTPUT_NOT_WRITABLE", InputError, enc, "float", folder / "x.mnn")
        return
    # For root, permissions do not count; a read-only mount does.
    code = (
        "import sys, subprocess; from pathlib import Path; from edgequant.errors import InputError\n"
        "from edgequant.quantize.convert import convert; from edgequant.spec import Variant\n"
        "subprocess.run(['mount', '-t', 'tmpfs', '-o', 'ro', 'none', sys.argv[2]], check=True)\n"
        "try: convert(Path(sys.argv[1]), Variant.parse('float'), Path(sys.argv[2], 'x.mnn'),"
        " log_dir=Path(sys.argv[3]))\n"
        "except InputError as error: print(error.code)"
    )
    command = ["unshare", "--mount", sys.executable, "-c", code, enc, folder, tmp_path / "logs"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "OUTPUT_NOT_WRITABLE", done.stderr[-2000:]


def test_a_crash_of_the_converter_is_named(tmp_path: Path) -> None:
    """A GRU without its weights: the converter follows a null pointer."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 8]) for name in "xy")
    graph = helper.make_graph([helper.make_node("GRU", ["x"], ["y"])], "g", [x], [y])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8), tmp_path / "m.onnx")
    (tmp_path / "m.mnn").write_text("old")
    error = fails("CONVERTER_CRASHED", ToolError, tmp_path / "m.onnx", "weight:8", tmp_path / "m.mnn")
    assert "SIGSEGV" in str(error)
    assert error.hint
    assert error.evidence["log_tail"]
    assert left_in(tmp_path) == {"m.onnx", "m.mnn"}
    assert (tmp_path / "m.mnn").read_text() == "old"
