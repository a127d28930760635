"""Specs: what is read from them, and what is refused."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import yaml

from edgequant.cli import commands, options
from edgequant.cli.groups import Group, Option
from edgequant.cli.options import EXAMPLE_SPEC
from edgequant.cli.request import make_request
from edgequant.errors import InputError
from edgequant.lab.session import DeviceOptions
from edgequant.plan.request import Request
from edgequant.plan.stored import plan_of, request_of
from edgequant.spec import Access, RunOptions, Variant
from edgequant.spec.file import VerifySpec, load_spec
from edgequant.spec.images import ImageOptions

CONFIGS = EXAMPLE_SPEC.parent


def test_the_example_says_what_it_says() -> None:
    spec = load_spec(CONFIGS / "verify.yaml")
    assert spec.devices == ["local:"]
    assert spec.variants == ["dynamic:8", "dynamic:8,hqq"]
    assert spec.shapes["feat_spec"] == [1, 2, 50, 96]
    assert spec.options.seed == 7


def every_key(folder: Path) -> dict[str, Any]:
    """The example with nothing commented out; a key is told from prose by its colon.  It takes both of what excludes
    each other, so it does not load as a whole."""
    shown = re.sub(
        r"^( *)# ((?:  )?[a-z_]+:(?: .*)?)$", r"\1\2", (CONFIGS / "verify.yaml").read_text(), flags=re.MULTILINE
    )
    found = yaml.safe_load(shown)
    assert isinstance(found, dict)
    return found


def flat(keys: Mapping[str, Any]) -> set[str]:
    """Dotted; images is one key, whose parts are --image's words, and shapes' are the model's."""
    sections = {name: value for name, value in keys.items() if name in ("options", "device_options")}
    return {name for name in keys if name not in sections} | {
        f"{section}.{name}" for section, names in sections.items() for name in names
    }


def options_of_verify() -> list[Option]:
    groups = [
        hint for hint in get_type_hints(commands.verify, localns={"opt": options}).values() if isinstance(hint, type)
    ]
    return [option for group in groups if issubclass(group, Group) for option in group.options()]


def test_the_command_line_the_spec_and_the_example_have_the_same_keys(tmp_path: Path) -> None:
    options = options_of_verify()
    here = {"spec", "spec_example", "run_dir", "resume", "csv", "html", "junit", "summary", "openmetrics", "history"}
    here |= {"json", "verbose", "quiet"}
    assert {option.name for option in options if option.key is None} == here
    typed = {option.key for option in options} - {None}
    sections = {"options": RunOptions.model_fields, "device_options": Access.model_fields}
    assert flat({**VerifySpec.model_fields, **sections}) == typed
    assert flat(every_key(tmp_path)) == typed
    # One option, one key.
    assert len(typed) + len(here) == len(options)


def test_every_key_of_the_example_loads(tmp_path: Path) -> None:
    written = every_key(tmp_path)
    device, path = written["device_options"], tmp_path / "all.yaml"
    # Each of what excludes the others.
    for left in ({"python"}, {"mnn"}, {"pack"}):
        taken = {name: value for name, value in device.items() if name not in {"python", "mnn", "pack"} - left}
        path.write_text(yaml.safe_dump({**written, "device_options": taken}))
        spec = load_spec(path)
    assert spec.calibration == str(tmp_path / "samples/")
    assert (spec.options.memory, spec.options.cores, spec.fallback) == ("low", (4, 5, 6, 7), True)
    # What is commented out with its default has it.
    for name in ("fallback", "budget", "latency"):
        assert written[name] == getattr(VerifySpec(), name)
    assert (written["options"]["precision"], written["options"]["timeout"]) == ("normal", RunOptions().timeout)
    for name in ("runtime", "wait", "accept_new_host_key"):
        assert device[name] == getattr(Access(), name)
    path.write_text(yaml.safe_dump({**written, "device_options": device}))
    with pytest.raises(InputError, match="--mnn and --pack contradict each other"):
        load_spec(path)


def test_each_key_has_a_comment() -> None:
    """One key of a group may speak for those behind it, as warmup does for repeat."""
    before = ""
    for line in (CONFIGS / "verify.yaml").read_text().splitlines():
        if re.match(r"(# )?[a-z_]+:", line) and "options:" not in line:
            assert before.startswith("# "), line
        before = line


def test_what_is_typed_comes_on_top(tmp_path: Path) -> None:
    typed = {
        "variants": ["fp16"], "limits": ["cosine>=0.5"], "shapes": ["feat_erb=1,1,9,32"],
        "options": {"threads": 1, "cores": "4-6"}, "latency": False,
    }  # fmt: skip
    request = make_request("m.onnx", typed, spec=str(CONFIGS / "verify.yaml"))
    assert request.devices == ("local:",)
    assert [str(variant) for variant in request.variants] == ["fp16"]
    assert [str(limit) for limit in request.limits] == ["sqnr_db>=25", "lsnr:cosine>=0.99", "cosine>=0.5"]
    assert request.shapes == {"feat_erb": (1, 1, 9, 32), "feat_spec": (1, 2, 50, 96)}
    assert (request.options.threads, request.options.seed, request.options.cores) == (1, 7, (4, 5, 6))
    assert not request.latency


def test_how_devices_are_reached_comes_from_both(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(
        "devices: ['local:']\nvariants: [auto]\nbudget: latency\nlatency: false\n"
        "device_options: {python: /opt/python, wait: 5, work_dir: /data/x}\n"
    )
    spec = str(tmp_path / "s.yaml")
    request = make_request("m.onnx", {"device_options": {"wait": 7.0}}, spec=spec)
    assert request.access == DeviceOptions(work_dir="/data/x", python="/opt/python", wait=7.0)
    assert (request.budget, request.latency) == ("latency", False)
    with pytest.raises(InputError, match="--mnn and --python contradict each other"):
        make_request("m.onnx", {"device_options": {"mnn": "3.6.1"}}, spec=spec)
    assert make_request("m.onnx", {"devices": ["local:"]}).access == DeviceOptions()


def test_what_a_spec_has_for_auto_is_used_by_auto(tmp_path: Path) -> None:
    """Of variants typed instead of the spec's nothing is asked."""
    spec = tmp_path / "s.yaml"
    for text, name in (("goals: ['sqnr_db>=30']", "goals"), ("budget: latency", "budget")):
        spec.write_text(f"devices: ['local:']\n{text}\n")
        with pytest.raises(InputError, match=f"^{name}: only auto"):
            make_request("m.onnx", {}, spec=str(spec))
        assert make_request("m.onnx", {"variants": ["fp16"]}, spec=str(spec)).variants == (Variant.parse("fp16"),)


def test_what_outputs_decide_comes_from_both(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("devices: ['local:']\ndecides: {logits: probabilities, mask: scores}\n")
    request = make_request("m.onnx", {"decides": ["mask=set", "a=b=classes"]}, spec=str(tmp_path / "s.yaml"))
    assert request.decides == {"logits": "probabilities", "mask": "set", "a=b": "classes"}
    assert request_of(plan_of(request, "3.6.1"), tmp_path).decides == request.decides
    with pytest.raises(InputError, match="'winner' is nothing that an output decides"):
        Request(Path("m.onnx"), decides={"y": "winner"})  # type: ignore[dict-item]
    (tmp_path / "s.yaml").write_text("decides: {y: winner}\n")
    with pytest.raises(InputError, match=r"decides\.y"):
        load_spec(tmp_path / "s.yaml")


def test_pictures_are_described_as_on_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(
        "images:\n  format: BGR\n  mean: [123.7, 116.3, 103.5]\n  normal: 0.017\n  size: 224x112\n"
        "  center_crop: 0.875\n"
    )
    written = ImageOptions.parse("format=BGR mean=123.7,116.3,103.5 normal=0.017 size=224x112 center_crop=0.875")
    assert load_spec(tmp_path / "s.yaml").images == written
    request = make_request("m.onnx", {"devices": ["local:"], "images": ["size=10x20"]}, spec=str(tmp_path / "s.yaml"))
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
        ("images: {mean: .nan}", ":1: images.mean.0: must be a finite number, not NaN"),
        ("fallback: 'no'", "fallback: must be true or false"),
        ("latency: 1", "latency: must be true or false"),
        ("devices: ['local:']\nrollout: 5.0", ":2: rollout: must be a whole number, not 5.0"),
        ("shapes: {x: [true, 3]}", "shapes.x.0: must be a whole number, not true"),
        ("options:\n  seed: 1\n  threads: true", ":3: options.threads: must be a whole number, not true"),
        ("images: {mean: ['1']}", 'images.mean.0: must be a number, not "1", which is text: write 1'),
        ("images: {size: [true, 4]}", "images.size.0: must be a whole number"),
        ("images: {center_crop: true}", "must be a number, not true"),
        ("images: {mean: [1, 2]}", "images: mean has 2 numbers, RGB has 3 channels"),
        ("images: {size: [0, 3]}", "images.size"),
        ("images: {size: big}", "write WIDTHxHEIGHT"),
        ("images: {mean: true}", "images.mean"),
        ("images: BGR", "images"),
        ("- a\n- b", "keys and values"),
        ("a: [", "not YAML: line 1, column 5: "),
        ("a: 1\nb: {c: 'x}\n", "not YAML: line 3, column 1: while scanning a quoted scalar: found unexpected end of"),
        ("variant: [fp16]", "variant: there is no such key; did you mean 'variants'?"),
        ("options: {thread: 1}", "options.thread: there is no such key; did you mean 'threads'?"),
        ("!!python/object/apply:os.system ['true']", "not YAML"),
        ("a: &x [1]\nb: [*x, *x]", "aliases"),
        ("limits: ['cosine>=0.999']\nlimits: ['cosine>=0.1']", "line 2: 'limits' is given twice"),
        ("options: {seed: 1, threads: 1, seed: 2}", "'seed' is given twice"),
        ("<<: {limits: ['cosine>=0.1']}\nlimits: ['cosine>=0.999']", "'limits' is given twice"),
        ("shapes: {x: [1], 'x': [2]}", "'x' is given twice"),
        ("{[a]: 1}", "not YAML"),
        ("budget: time", "budget: must be 'size' or 'latency'"),
        ("device_options: {pyton: x}", "device_options.pyton"),
        ("device_options: {work_dir: x}", "device_options.work_dir: 'x' must be an absolute path"),
        ("device_options: {python: x, runtime: pack}", "device_options: --python and --runtime pack contradict"),
        ("device_options: {wait: -1}", "device_options.wait"),
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
    assert "--spec-example" in str(caught.value.hint)


def test_a_spec_of_accept_names_its_command(tmp_path: Path) -> None:
    path = tmp_path / "gate.yaml"
    path.write_text("models: {m: {path: m.onnx}}\nrules: []\n")
    with pytest.raises(InputError) as caught:
        load_spec(path)
    assert f"edgequant accept {path}" in str(caught.value.hint)


def test_no_device_at_all_says_how_to_name_one() -> None:
    with pytest.raises(InputError) as caught:
        make_request("m.onnx", {})
    assert caught.value.code == "DEVICE_MISSING"
    for scheme in ("local:", "ssh://", "adb://", "emulated:"):
        assert scheme in str(caught.value.hint)
