"""Every way a model file can be unusable has its code, its one line and its hint."""

from __future__ import annotations

import os
import time
from pathlib import Path

import onnx
import pytest

from edgequant.errors import InputError
from edgequant.models import read_model
from tests import generated, generated_other, sources


def refuse(path: Path, code: str) -> InputError:
    with pytest.raises(InputError) as caught:
        read_model(path)
    error = caught.value
    assert error.code == code
    assert str(path) in str(error)
    assert "\n" not in str(error)
    assert error.hint
    return error


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_not_found(tmp_path):
    refuse(tmp_path / "no.onnx", "MODEL_NOT_FOUND")
    refuse(write(tmp_path / "file", b"x") / "below.onnx", "MODEL_NOT_FOUND")


def test_directory(tmp_path):
    refuse(tmp_path, "MODEL_IS_DIRECTORY")
    generated_other.tf_saved_model(tmp_path / "saved_model.pb")
    assert "SavedModel" in str(refuse(tmp_path, "MODEL_IS_DIRECTORY").hint)


def test_empty(tmp_path):
    refuse(write(tmp_path / "m.onnx", b""), "MODEL_EMPTY")


def test_no_regular_file(tmp_path):
    os.mkfifo(tmp_path / "m.onnx")
    refuse(tmp_path / "m.onnx", "MODEL_INVALID")


def test_no_permission(tmp_path, monkeypatch):
    path = generated.rank1_dynamic(tmp_path / "m.onnx")

    def refused(*_, **__):
        raise PermissionError(13, "Permission denied", str(path))

    # Root, who often runs tests in containers, may read anything.
    monkeypatch.setattr("edgequant.models.open_file", refused)
    assert "Permission denied" in str(refuse(path, "MODEL_UNREADABLE"))


@pytest.mark.parametrize("place", ["node", "tensor"])
def test_a_name_without_end(place, tmp_path):
    """MNN takes it; records and a runner's answers would not."""
    model = onnx.load(generated.conv_cnn(tmp_path / "m.onnx"))
    long = "n" * 60_000
    if place == "node":
        model.graph.node[0].name = long
    else:
        model.graph.node[0].output[0] = model.graph.node[1].input[0] = long
    onnx.save(model, tmp_path / "m.onnx")
    error = refuse(tmp_path / "m.onnx", "NAME_TOO_LONG")
    assert "60000 characters" in str(error)
    assert len(str(error)) < 500


def test_a_disk_image_is_refused_before_all_of_it_is_read(tmp_path):
    path = tmp_path / "disk.onnx"
    with open(path, "wb") as file:
        file.truncate(1 << 36)
    before = time.process_time()
    refuse(path, "MODEL_INVALID")
    assert time.process_time() - before < 5  # its hash takes a minute


@pytest.mark.parametrize(
    ("contents", "named"),
    [
        (b"<!DOCTYPE html><html><body>404 Not Found</body></html>", "web page"),
        (b"\n  <HTML>busy</HTML>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "Git LFS pointer"),
        (b'{"error": "not found"}', "JSON"),
        (b"PK\x03\x04" + bytes(60), "ZIP"),
        (b"\x89HDF\r\n\x1a\n" + bytes(60), "HDF5"),
        (b"\x80\x02}q\x00.", "pickle"),
    ],
)
@pytest.mark.parametrize("name", ["m.onnx", "m.tflite", "m.pb", "m.mnn", "model"])
def test_well_known_files_that_are_no_models(tmp_path, contents, named, name):
    assert named in str(refuse(write(tmp_path / name, contents), "MODEL_INVALID"))


@pytest.mark.parametrize("name", ["m.onnx", "m.pb", "m.mnn", "m.tflite"])
def test_garbage_under_a_models_name(tmp_path, name):
    with pytest.raises(InputError) as caught:
        read_model(write(tmp_path / name, b"hello, this is only some text, not a model " * 20))
    assert caught.value.code in ("MODEL_INVALID", "MODEL_TRUNCATED")


def test_unknown(tmp_path):
    refuse(write(tmp_path / "weights.bin", b"hello, this is only some text " * 20), "MODEL_FORMAT_UNKNOWN")
    refuse(write(tmp_path / "zeros", bytes(4096)), "MODEL_FORMAT_UNKNOWN")


def test_saved_model_file(tmp_path):
    assert "SavedModel" in str(refuse(generated_other.tf_saved_model(tmp_path / "saved_model.pb"), "MODEL_INVALID"))


def test_contents_and_name_disagree(tmp_path):
    makers = {
        "onnx": generated.conv_cnn(tmp_path / "a.onnx"),
        "tflite": generated_other.tflite(tmp_path / "a.tflite"),
        "pb": generated_other.tf_frozen(tmp_path / "a.pb"),
        "mnn": sources.convert(tmp_path / "a.onnx", tmp_path / "a.mnn"),
    }
    for suffix, source in makers.items():
        found = read_model(source).format
        assert read_model(write(tmp_path / "no_suffix", source.read_bytes())).format == found
        for other in makers.keys() - {suffix}:
            error = refuse(write(tmp_path / f"wrong.{other}", source.read_bytes()), "MODEL_WRONG_FORMAT")
            assert f"wrong.{suffix}" in str(error.hint)
            assert error.evidence["content_is"] == found


@pytest.mark.parametrize("number", [8, 14, 15, 16, 17, 22])
def test_element_type_nobody_can_feed(tmp_path, number):
    assert "'x'" in str(refuse(generated.element_type(tmp_path / "m.onnx", number), "MODEL_DTYPE_UNSUPPORTED"))


def test_element_type_of_other_formats(tmp_path):
    refuse(generated_other.tflite(tmp_path / "m.tflite", dtype=5), "MODEL_DTYPE_UNSUPPORTED")
    refuse(generated_other.tf_frozen(tmp_path / "m.pb", dtype="string"), "MODEL_DTYPE_UNSUPPORTED")


def test_sequence_input(tmp_path):
    value = onnx.helper.make_tensor_sequence_value_info("x", onnx.TensorProto.FLOAT, None)
    node = onnx.helper.make_node("SequenceLength", ["x"], ["y"])
    output = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.INT64, [])
    path = generated.save(tmp_path / "m.onnx", [node], [value], [output])
    assert "sequence" in str(refuse(path, "MODEL_DTYPE_UNSUPPORTED"))


def test_external_data_missing_and_short(tmp_path):
    path = generated.external_data(tmp_path / "m.onnx")
    write(tmp_path / "weights.bin", b"version https://git-lfs")
    assert "weights.bin" in str(refuse(path, "MODEL_TRUNCATED"))
    (tmp_path / "weights.bin").unlink()
    assert "weights.bin" in str(refuse(path, "MODEL_EXTERNAL_DATA_MISSING"))


def test_external_data_outside(tmp_path):
    inside = tmp_path / "inside"
    inside.mkdir()
    write(tmp_path / "secret", bytes(1000))
    path = generated.external_data(inside / "m.onnx", "weights.bin")
    model = onnx.load(str(path), load_external_data=False)
    for location in ("../secret", str(tmp_path / "secret"), "a/../../secret", "", ".", "we\0ird", "link"):
        (inside / "link").unlink(missing_ok=True)
        (inside / "link").symlink_to(tmp_path / "secret")
        model.graph.initializer[0].external_data[0].value = location
        refuse(write(path, model.SerializeToString()), "MODEL_EXTERNAL_DATA_UNSAFE")
    (inside / "link").unlink()
    (inside / "link").symlink_to("link")
    refuse(path, "MODEL_EXTERNAL_DATA_MISSING")
    model.graph.initializer[0].external_data[0].value = "long" * 2000
    refuse(write(path, model.SerializeToString()), "MODEL_UNREADABLE")


def test_mnn_weight_file_missing(generated_model, tmp_path):
    path = sources.convert(generated_model("big_mlp"), tmp_path / "big.mnn", "--saveExternalData")
    (tmp_path / "big.mnn.weight").unlink()
    assert "big.mnn.weight" in str(refuse(path, "MODEL_EXTERNAL_DATA_MISSING"))
