"""Calibration data of every kind, good and bad, against real files and real child processes."""

from __future__ import annotations

import json
import os
import socket
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgequant.cases.image_options import ImageOptions
from edgequant.cases.load import save_npz
from edgequant.errors import EdgequantError, InputError, ToolError
from edgequant.quantize.calibration import CalibrationOptions, CalibrationSet, load_calibration
from edgequant.tensors import TensorSpec

ERB = TensorSpec("feat_erb", "float32", (1, 1, None, 4), (None, None, "S", None))
SPEC = TensorSpec("feat_spec", "float32", (1, 2, None, 3), (None, None, "S", None))
BOTH = (ERB, SPEC)
PICTURE = TensorSpec("x", "float32", (1, 3, 8, 6), layout="NCHW")


def sample(steps: int = 5, seed: int = 0, **changed: np.ndarray) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    made = {
        "feat_erb": random.standard_normal((1, 1, steps, 4)).astype(np.float32),
        "feat_spec": random.standard_normal((1, 2, steps, 3)).astype(np.float32),
    }
    return {**made, **changed}


def folder_of(path: Path, *samples: dict[str, np.ndarray]) -> Path:
    path.mkdir()
    for number, arrays in enumerate(samples):
        save_npz(path / f"s{number:03d}.npz", arrays)
    return path


def load(source: object, tmp_path: Path, inputs: tuple[TensorSpec, ...] = BOTH, **options: object) -> CalibrationSet:
    work = tmp_path / "work"
    work.mkdir(exist_ok=True)
    return load_calibration(source, inputs, work=work, options=CalibrationOptions(**options))  # type: ignore[arg-type]


def refused(code: str, *args: object, kind: type[EdgequantError] = InputError, **options: object) -> EdgequantError:
    with pytest.raises(kind) as caught:
        load(*args, **options)  # type: ignore[arg-type]
    assert caught.value.code == code, caught.value.as_dict()
    return caught.value


def codes(found: CalibrationSet) -> list[str]:
    return [finding.code for finding in found.findings]


def test_a_folder_with_several_shapes_is_read_in_order_again_and_again(tmp_path: Path) -> None:
    given = [sample(steps, seed) for seed, steps in enumerate((5, 7, 5))]
    found = load(folder_of(tmp_path / "data", *given), tmp_path)
    assert len(found) == 3
    assert found.findings == ()
    for _ in range(2):
        for case, arrays in zip(found, given, strict=True):
            assert all(np.array_equal(case.inputs[name], arrays[name]) for name in arrays)
    assert sorted(found.shapes.values()) == [1, 2]
    assert found.shapes[found.facts[0].shapes] == 2
    assert found.facts[1].largest[0] == pytest.approx(float(np.abs(given[1]["feat_erb"]).max()))
    assert [case.name for case in found.only([2, 0])] == ["s002", "s000"]


def test_samples_takes_the_first_and_says_when_there_are_fewer(tmp_path: Path) -> None:
    data = folder_of(tmp_path / "data", *(sample(5, seed) for seed in range(4)))
    assert len(load(data, tmp_path, samples=3)) == 3
    assert codes(load(data, tmp_path, samples=9)) == ["CALIBRATION_FEW"]
    for samples in (0, -1, 10**6):
        refused("CALIBRATION_SAMPLES", data, tmp_path, samples=samples)


def test_a_bad_sample_behind_the_limit_is_not_looked_at(tmp_path: Path) -> None:
    data = folder_of(tmp_path / "data", sample(), sample(seed=1), {"wrong": np.zeros(3)})
    assert len(load(data, tmp_path, samples=2)) == 2
    refused("CALIBRATION_NAMES", data, tmp_path)


def test_one_npz_is_one_sample_and_that_is_said(tmp_path: Path) -> None:
    save_npz(tmp_path / "one.npz", sample())
    found = load(tmp_path / "one.npz", tmp_path)
    assert len(found) == 1
    assert codes(found) == ["CALIBRATION_FEW"]


def test_mnn_test_folders(tmp_path: Path) -> None:
    data = tmp_path / "data"
    for number in range(2):
        folder = data / f"case{number}"
        folder.mkdir(parents=True)
        arrays = sample(3, number)
        listed = [{"name": name, "shape": list(array.shape)} for name, array in arrays.items()]
        (folder / "input.json").write_text(json.dumps({"inputs": listed}))
        for name, array in arrays.items():
            np.savetxt(folder / f"{name}.txt", array.ravel())
    found = load(data, tmp_path)
    assert [case.name for case in found] == ["case0", "case1"]
    assert np.allclose(found.read(1).inputs["feat_spec"], sample(3, 1)["feat_spec"])


def test_a_misspelt_input_is_refused_with_the_one_that_was_meant(tmp_path: Path) -> None:
    arrays = sample()
    arrays["feat_erbs"] = arrays.pop("feat_erb")
    error = refused("CALIBRATION_NAMES", folder_of(tmp_path / "data", arrays), tmp_path)
    assert "feat_erbs" in str(error)
    assert "Did you mean 'feat_erb'?" in (error.hint or "")


def test_a_missing_input_is_named(tmp_path: Path) -> None:
    arrays = sample()
    del arrays["feat_spec"]
    error = refused("CALIBRATION_NAMES", folder_of(tmp_path / "data", sample(), arrays), tmp_path)
    assert "s001.npz" in str(error)
    assert "feat_spec" in str(error)


@pytest.mark.parametrize(
    ("code", "changed"),
    [
        ("CALIBRATION_SHAPE", {"feat_erb": np.zeros((1, 1, 5, 3), np.float32)}),
        ("CALIBRATION_SHAPE", {"feat_erb": np.zeros((8, 1, 5, 4), np.float32)}),
        ("CALIBRATION_SHAPE", {"feat_erb": np.zeros((1, 1, 6, 4), np.float32)}),
        ("CALIBRATION_SHAPE", {"feat_erb": np.zeros((1, 1, 0, 4), np.float32)}),
        ("CALIBRATION_DTYPE", {"feat_erb": np.zeros((1, 1, 5, 4), np.int32)}),
        ("CALIBRATION_DTYPE", {"feat_erb": np.full((1, 1, 5, 4), 1e300)}),
        ("CALIBRATION_NAN", {"feat_erb": np.full((1, 1, 5, 4), np.nan, np.float32)}),
        ("CALIBRATION_NAN", {"feat_erb": np.full((1, 1, 5, 4), -np.inf, np.float32)}),
    ],
)
def test_what_does_not_fit_is_refused_with_sample_and_input_named(
    code: str, changed: dict[str, np.ndarray], tmp_path: Path
) -> None:
    data = folder_of(tmp_path / "data", sample(5, 1), sample(5, 2, **changed))
    error = refused(code, data, tmp_path)
    assert "s001.npz" in str(error)
    assert "feat_erb" in str(error)
    assert error.hint


def test_a_constant_input_is_told_and_a_mode_is_not(tmp_path: Path) -> None:
    flat = np.full((1, 1, 5, 4), 0.25, np.float32)
    rate = TensorSpec("sr", "int64", ())
    given = [sample(5, seed, feat_erb=flat, sr=np.array(16000)) for seed in range(3)]
    found = load(folder_of(tmp_path / "data", *given), tmp_path, (*BOTH, rate))
    assert codes(found) == ["CALIBRATION_CONSTANT"]
    assert found.findings[0].where == "feat_erb"


def test_constant_samples_that_differ_are_not_constant(tmp_path: Path) -> None:
    given = [sample(5, n, feat_erb=np.full((1, 1, 5, 4), n, np.float32)) for n in range(2)]
    assert codes(load(folder_of(tmp_path / "data", *given), tmp_path)) == []


def test_whole_numbers_float32_cannot_hold_are_told(tmp_path: Path) -> None:
    ids = TensorSpec("ids", "int64", (1, 2))
    given = [{"ids": np.array([[n, (1 << 24) + 1]])} for n in range(2)]
    assert codes(load(folder_of(tmp_path / "data", *given), tmp_path, (ids,))) == ["CALIBRATION_INEXACT"]


def test_nothing_there(tmp_path: Path) -> None:
    refused("CALIBRATION_NOT_FOUND", tmp_path / "nowhere", tmp_path)
    (tmp_path / "empty").mkdir()
    refused("CALIBRATION_EMPTY", tmp_path / "empty", tmp_path)
    (tmp_path / "broken.npz").write_bytes(b"PK nonsense")
    refused("CALIBRATION_FILE", tmp_path / "broken.npz", tmp_path)
    (tmp_path / "data.csv").write_text("1,2")
    refused("CALIBRATION_FORMAT", tmp_path / "data.csv", tmp_path)


def test_a_file_that_changes_between_two_passes_is_noticed(tmp_path: Path) -> None:
    data = folder_of(tmp_path / "data", sample(), sample(seed=1))
    found = load(data, tmp_path)
    save_npz(data / "s001.npz", sample(9, 1))
    assert found.read(0).name == "s000"
    with pytest.raises(InputError) as caught:
        list(found)
    assert caught.value.code == "CALIBRATION_CHANGED"


def test_random_data_is_made_and_never_in_silence(tmp_path: Path) -> None:
    found = load(None, tmp_path, samples=3, seed=7)
    assert codes(found) == ["CALIBRATION_RANDOM"]
    assert len(found) == 3
    assert found.findings[0].severity == "warn"
    values = [case.inputs["feat_erb"] for case in found]
    assert not np.array_equal(values[0], values[1])
    assert np.array_equal(values[0], load(None, tmp_path, seed=7).read(0).inputs["feat_erb"])


# ---- pictures


def pictures(path: Path, count: int = 3) -> Path:
    path.mkdir()
    for number in range(count):
        pixels = np.zeros((10, 12, 3), np.uint8)
        pixels[..., 0], pixels[..., 2] = 200, 10 * number
        Image.fromarray(pixels).save(path / f"{number}.{('png', 'jpg', 'bmp')[number % 3]}", quality=100)
    return path


@pytest.mark.parametrize("order", ["RGB", "BGR"])
def test_pictures_are_scaled_and_normalized_in_the_order_asked_for(order: str, tmp_path: Path) -> None:
    options = ImageOptions(format=order, mean=(10, 20, 30), normal=(0.5, 1, 2))  # type: ignore[arg-type]
    found = load(pictures(tmp_path / "p"), tmp_path, (PICTURE,), images=options)
    array = found.read(0).inputs["x"]
    assert array.shape == (1, 3, 8, 6)
    red, blue = (0, 2) if order == "RGB" else (2, 0)
    wanted = np.zeros(3)
    wanted[red], wanted[blue] = 200, 0
    assert array[0, :, 4, 3] == pytest.approx((wanted - [10, 20, 30]) * [0.5, 1, 2])


def test_gray_pictures_in_nhwc_with_a_size_of_ones_own(tmp_path: Path) -> None:
    spec = TensorSpec("x", "uint8", (None, None, None, 1), layout="NHWC")
    data = pictures(tmp_path / "p")
    error = refused("IMAGE_SIZE_UNKNOWN", data, tmp_path, (spec,), images=ImageOptions(format="GRAY"))
    assert "x" in str(error)
    found = load(data, tmp_path, (spec,), images=ImageOptions(format="GRAY", size=(5, 4)))
    array = found.read(0).inputs["x"]
    assert array.shape == (1, 4, 5, 1)
    assert array.dtype == np.uint8
    assert array[0, 2, 2, 0] == round(200 * 0.299)


def test_pictures_that_cannot_be_used(tmp_path: Path) -> None:
    data = pictures(tmp_path / "p")
    assert "feat_erb" in str(refused("IMAGE_INPUT", data, tmp_path, BOTH))
    error = refused("CALIBRATION_SHAPE", data, tmp_path, (PICTURE,), images=ImageOptions(format="GRAY"))
    assert "0.png" in str(error)
    (data / "1.jpg").write_bytes((data / "1.jpg").read_bytes()[:200])
    assert "1.jpg" in str(refused("CALIBRATION_FILE", data, tmp_path, (PICTURE,)))
    save_npz(data / "s.npz", sample())
    refused("CALIBRATION_FORMAT", data, tmp_path, (PICTURE,))


def test_a_picture_that_unpacks_to_too_much_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    Image.new("1", (10_000, 10_000)).save(tmp_path / "p" / "bomb.png")
    assert "10000 x 10000" in str(refused("CALIBRATION_TOO_LARGE", tmp_path / "p", tmp_path, (PICTURE,)))


@pytest.mark.parametrize("bad", [{"mean": (1, 2)}, {"normal": ()}, {"size": (0, 3)}, {"mean": (float("nan"),)}])
def test_picture_options_are_checked(bad: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        ImageOptions(**bad)  # type: ignore[arg-type]


def test_pictures_say_what_was_done_and_what_was_left_out(tmp_path: Path) -> None:
    data = pictures(tmp_path / "p")
    (data / "more.heic").write_bytes(b"x")
    found = load(data, tmp_path, (PICTURE,), images=ImageOptions(format="BGR", mean=(1, 2, 3)))
    assert [case.name for case in found] == ["0.png", "1.jpg", "2.bmp"]
    told = {each.code: each for each in found.findings}
    assert "3 pictures become input 'x': BGR, (pixel - [1, 2, 3]) * 1" in told["CALIBRATION_IMAGES"].message
    assert "1 .heic" in told["CALIBRATION_LEFT_OUT"].message
    assert found.images is not None
    assert found.images.startswith("BGR")
    (one,) = [f for f in load(data, tmp_path, (PICTURE,), samples=1).findings if f.code == "CALIBRATION_IMAGES"]
    assert one.message.startswith("1 picture becomes")


@pytest.mark.parametrize("kind", ["png", "npz"])
def test_more_files_than_can_be_used_are_refused_unless_some_are_asked_for(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "many"
    data.mkdir()
    arrays = {"x": np.ones((1, 3, 8, 6), np.float32)}
    for number in range(3):
        save_npz(data / f"{number}.npz", arrays) if kind == "npz" else Image.new("RGB", (6, 8)).save(
            data / f"{number}.png"
        )
    monkeypatch.setattr("edgequant.quantize.calibration.MAX_SAMPLES", 2)
    error = refused("CALIBRATION_TOO_LARGE", data, tmp_path, (PICTURE,))
    assert "samples=100" in str(error.hint)
    assert len(load(data, tmp_path, (PICTURE,), samples=2)) == 2


# ---- files that are none, and files that never end


def circle(path: Path) -> None:
    path.symlink_to(path.name)


@pytest.mark.parametrize("kind", ["fifo", "zero", "socket", "circle"])
@pytest.mark.parametrize("name", ["x.npz", "t/input.json", "t/feat_erb.txt", "x.png"])
def test_what_has_no_end_is_refused_at_once(kind: str, name: str, tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / name).parent.mkdir(parents=True)
    shapes = [{"name": "feat_erb", "shape": [1, 1, 5, 4]}, {"name": "feat_spec", "shape": [1, 2, 5, 3], "value": 0}]
    if name.endswith(".txt"):
        (data / "t" / "input.json").write_text(json.dumps({"inputs": shapes}))
    make = {"fifo": os.mkfifo, "zero": lambda path: path.symlink_to("/dev/zero"), "circle": circle, "socket": listen}
    make[kind](data / name)
    with pytest.raises(InputError) as caught:
        load(data, tmp_path)
    assert caught.value.code in ("CALIBRATION_FORMAT", "CALIBRATION_FILE", "CALIBRATION_EMPTY")
    assert Path(name).stem in str(caught.value)


def listen(path: Path) -> None:
    here = os.open(path.parent, os.O_RDONLY)
    try:
        # Not by its own path, which may be longer than a socket's can be.
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(f"/proc/self/fd/{here}/{path.name}")
    finally:
        os.close(here)


@pytest.mark.parametrize("name", ["n" * 300, "n" * 300 + ".npz", "n" * 300 + ".png", "nul\0byte"])
def test_names_no_file_can_have(name: str, tmp_path: Path) -> None:
    refused("CALIBRATION_NOT_FOUND", tmp_path / name, tmp_path)
    refused("CALIBRATION_NOT_FOUND", name, tmp_path)


def test_a_long_name_with_a_colon_is_a_function_that_is_not_there(tmp_path: Path) -> None:
    assert "there is no module" in str(refused("CALIBRATION_FUNCTION", "n" * 300 + ":make", tmp_path))


def test_a_small_file_of_much_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    zeros = np.zeros((1, 4, 4096, 4096), np.float32)
    np.savez_compressed(tmp_path / "bomb.npz", x=zeros)
    del zeros
    tracemalloc.start()
    try:
        error = refused("CALIBRATION_SHAPE", tmp_path / "bomb.npz", tmp_path, (PICTURE,))
        assert tracemalloc.get_traced_memory()[1] < 20 << 20
    finally:
        tracemalloc.stop()
    assert "[1, 4, 4096, 4096]" in str(error)


@pytest.mark.parametrize("dtype", [">f4", "<f8", "f2"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_every_way_to_store_real_numbers(dtype: str, order: str, tmp_path: Path) -> None:
    values = np.linspace(-2, 2, 1 * 3 * 8 * 6).reshape(1, 3, 8, 6)
    save_npz(tmp_path / "a.npz", {"x": np.asarray(values, dtype, order=order)})  # type: ignore[call-overload]
    array = load(tmp_path / "a.npz", tmp_path, (PICTURE,)).read(0).inputs["x"]
    assert array.dtype == np.float32
    assert array.flags.c_contiguous
    assert np.allclose(array, values, atol=2e-3)


@pytest.mark.parametrize("dtype", ["bool", "int64", "uint8", "complex64", "U1", "V4"])
def test_what_is_no_real_number_is_refused(dtype: str, tmp_path: Path) -> None:
    save_npz(tmp_path / "a.npz", {"x": np.zeros((1, 3, 8, 6), dtype)})
    with pytest.raises(InputError) as caught:
        load(tmp_path / "a.npz", tmp_path, (PICTURE,))
    assert caught.value.code in ("CALIBRATION_DTYPE", "CALIBRATION_FILE")
    assert "'x'" in str(caught.value)


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.array([print], dtype=object))
    assert "never unpickled" in str(refused("CALIBRATION_FILE", tmp_path / "a.npz", tmp_path, (PICTURE,)))


# ---- Python functions


def function(tmp_path: Path, body: str) -> str:
    file = tmp_path / "calib.py"
    file.write_text("import os, sys, time\nimport numpy as np\n\n\ndef make():\n" + body)
    return f"{file}:make"


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


def test_hints_name_every_form_there_is(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "data.csv").write_text("1")
    refusals = [
        refused("CALIBRATION_NOT_FOUND", tmp_path / "nowhere", tmp_path),
        refused("CALIBRATION_EMPTY", tmp_path / "empty", tmp_path),
        refused("CALIBRATION_FORMAT", tmp_path / "data.csv", tmp_path),
        refused("CALIBRATION_EMPTY", function(tmp_path, "    return []\n"), tmp_path),
    ]
    for error in refusals:
        for form in (".npz file", "folder of them", "MNN test folders", "pictures", "module:function", "one dict per"):
            assert form in str(error.hint), error.as_dict()
    assert "yields, or returns a list of, one dict per sample" in str(
        refused("CALIBRATION_FUNCTION", function(tmp_path, "    return 1\n"), tmp_path).hint
    )


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
