"""Specs: what is read from them, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from edgequant.cli.request import make_request
from edgequant.errors import InputError
from edgequant.plan.request import Request
from edgequant.spec import RunOptions
from edgequant.spec.file import VerifySpec, load_spec
from edgequant.spec.images import ImageOptions

CONFIGS = Path(__file__).parents[2] / "configs"


def test_the_example_says_what_it_says() -> None:
    spec = load_spec(CONFIGS / "verify.yaml")
    assert spec.devices == ["local:"]
    assert spec.variants == ["dynamic:8", "dynamic:8,hqq"]
    assert spec.shapes["feat_spec"] == [1, 2, 50, 96]
    assert spec.options.seed == 7


def test_every_key_there_is_stands_in_the_example_and_every_key_there_loads(tmp_path: Path) -> None:
    """Commented out or not; a key is told from prose by its colon."""
    shown = tmp_path / "all.yaml"
    shown.write_text(
        re.sub(r"^( *)# ((?:  )?[a-z_]+:(?: .*)?)$", r"\1\2", (CONFIGS / "verify.yaml").read_text(), flags=re.MULTILINE)
    )
    written = yaml.safe_load(shown.read_text())
    assert written.keys() == VerifySpec.model_fields.keys()
    assert written["options"].keys() == RunOptions.model_fields.keys()
    spec = load_spec(shown)
    assert spec.calibration == str(tmp_path / "samples/")
    assert (spec.options.memory, spec.options.cores, spec.fallback) == ("low", (4, 5, 6, 7), True)
    # What is commented out with its default has it.
    assert written["fallback"] == VerifySpec().fallback
    assert (written["options"]["precision"], written["options"]["timeout"]) == ("normal", RunOptions().timeout)


def test_each_key_has_a_comment() -> None:
    """One key of a group may speak for those behind it, as warmup does for repeat."""
    before = ""
    for line in (CONFIGS / "verify.yaml").read_text().splitlines():
        if re.match(r"(# )?[a-z_]+:", line) and not line.startswith("options:"):
            assert before.startswith("# "), line
        before = line


def test_what_is_typed_comes_on_top(tmp_path: Path) -> None:
    request = make_request(
        model="m.onnx", devices=None, spec=str(CONFIGS / "verify.yaml"), variants=["fp16"], limits=["cosine>=0.5"],
        shapes=["feat_erb=1,1,9,32"], run_options=RunOptions(threads=1),
    )  # fmt: skip
    assert request.devices == ("local:",)
    assert [str(variant) for variant in request.variants] == ["fp16"]
    assert [str(limit) for limit in request.limits] == ["sqnr_db>=25", "lsnr:cosine>=0.99", "cosine>=0.5"]
    assert request.shapes == {"feat_erb": (1, 1, 9, 32), "feat_spec": (1, 2, 50, 96)}
    assert (request.options.threads, request.options.seed) == (1, 7)


def test_pictures_are_described_as_on_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(
        "images:\n  format: BGR\n  mean: [123.7, 116.3, 103.5]\n  normal: 0.017\n  size: 224x112\n"
        "  center_crop: 0.875\n"
    )
    written = ImageOptions.parse("format=BGR mean=123.7,116.3,103.5 normal=0.017 size=224x112 center_crop=0.875")
    assert load_spec(tmp_path / "s.yaml").images == written
    request = make_request(
        model="m.onnx", devices=["local:"], spec=str(tmp_path / "s.yaml"), images=["size=10x20"],
        run_options=RunOptions(),
    )  # fmt: skip
    assert request.images == written.model_copy(update={"size": (10, 20)})
    assert Request(Path("m.onnx"), images="mean=1").images == ImageOptions(mean=(1.0,))  # type: ignore[arg-type]


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("inputs: cases\nreference: /abs/ref")
    spec = load_spec(tmp_path / "s.yaml")
    assert spec.inputs == tmp_path / "cases"
    assert spec.reference == Path("/abs/ref")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("variants: [int7]", "unknown method 'int7'"),
        ("limits: ['cosine<=1']", "bounded with >="),
        ("what: 1", "what"),
        ("options: {threads: 0}", "options.threads"),
        ("options: {thread: 1}", "options.thread"),
        ("shapes: {x: [1, 0]}", "at least 1"),
        ("shapes: {x: hello}", "shapes.x"),
        ("images: {std: 1}", "images: there is no key 'std'; did you mean normal"),
        ("images: {normal: [1, 0, 1]}", "images.normal: 0 would make every pixel the same"),
        ("images: {mean: .nan}", "images.mean: one finite number"),
        ("images: {mean: [1, 2]}", "images: mean has 2 numbers, RGB has 3 channels"),
        ("images: {size: [0, 3]}", "images.size"),
        ("images: {size: big}", "write WIDTHxHEIGHT"),
        ("images: {mean: true}", "images.mean"),
        ("images: BGR", "images"),
        ("- a\n- b", "keys and values"),
        ("a: [", "not YAML"),
        ("!!python/object/apply:os.system ['true']", "not YAML"),
        ("a: &x [1]\nb: [*x, *x]", "aliases"),
        ("limits: ['cosine>=0.999']\nlimits: ['cosine>=0.1']", "line 2: 'limits' is given twice"),
        ("options: {seed: 1, threads: 1, seed: 2}", "'seed' is given twice"),
        ("<<: {limits: ['cosine>=0.1']}\nlimits: ['cosine>=0.999']", "'limits' is given twice"),
        ("shapes: {x: [1], 'x': [2]}", "'x' is given twice"),
        ("{[a]: 1}", "not YAML"),
        ("inputs: ''", "inputs: "),
        ("reference: ' '", "an empty path"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        load_spec(path)
    assert caught.value.code == "SPEC_INVALID"
    assert says in str(caught.value)
    assert str(path) in str(caught.value)


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        load_spec(tmp_path / "none.yaml")
    assert caught.value.code == "SPEC_NOT_FOUND"


def test_no_device_at_all_says_how_to_name_one() -> None:
    with pytest.raises(InputError) as caught:
        make_request(model="m.onnx", devices=None, run_options=RunOptions())
    assert caught.value.code == "DEVICE_MISSING"
    for scheme in ("local:", "ssh://", "adb://", "emulated:"):
        assert scheme in str(caught.value.hint)
