"""Where the error comes in: real files with a fault in one layer, and the command as a user gives it."""

from __future__ import annotations

import itertools
import json
import shlex
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgequant.archive.layers import LookMemory
from edgequant.archive.open import open_run
from edgequant.cases.case import Case
from edgequant.errors import InputError
from edgequant.jobs.diagnose import diagnose, diagnose_run
from edgequant.jobs.html import page_of
from edgequant.jobs.verify import verify
from edgequant.judge.diagnosis import diagnose as judge_layers
from edgequant.judge.verdict import Verdict
from edgequant.lab.probes.layers import Layers, Spot, once
from edgequant.lab.session import Session
from edgequant.lab.take import ModelFile
from edgequant.models import read_model
from edgequant.models.mnn.dequantize import weight_facts
from edgequant.models.mnn.layers import sides
from edgequant.models.mnn.weights import read_weights
from edgequant.plan.request import Request
from edgequant.quantize.recipe import Recipe
from edgequant.quantize.swap import Exchange
from edgequant.report.diagnosis import sentences
from tests import generated, sources
from tests.defects import layer_devices as devices
from tests.defects import layer_mechanisms as mechanisms
from tests.defects import layer_rarer as rarer
from tests.defects.layers import EDITS, Subject, blamed, breaks, generated_subject, look, planted, rates, run, this_host
from tests.jobs.support import ONE_THREAD, check_folder


@pytest.fixture(scope="module")
def host() -> Iterator[Session]:
    with this_host() as session:
        yield session


@pytest.fixture(scope="module")
def cnn(host: Session, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    return generated_subject("small_cnn", "dynamic:8", tmp_path_factory.mktemp("cnn"), host)


@pytest.fixture(scope="module")
def gru(host: Session, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    return generated_subject("gru", "dynamic:8", tmp_path_factory.mktemp("gru"), host)


def test_all_layers_in_float_are_the_float_model_bit_by_bit_and_none_is_the_quantized(
    gru: Subject, host: Session, tmp_path: Path
) -> None:
    path = tmp_path / "swapped.mnn"
    exchange = Exchange(gru.made, gru.plain, path)
    keys = exchange.layers
    assert any(graph for graph, _ in keys), "the loop's layers are among them"
    for floats, want in ((keys, gru.plain), ([], gru.made)):
        exchange.choose(floats)
        got = once(host, ModelFile(path, "low"), gru.cases)
        expected = once(host, ModelFile(want, "normal" if floats else "low"), gru.cases)
        assert isinstance(got, dict)
        assert isinstance(expected, dict)
        for case in expected:
            for name, array in expected[case].items():
                np.testing.assert_array_equal(array, got[case][name])


@pytest.mark.parametrize(
    "fault", ["scales of a quarter of the channels times 3", "bias gone", "zero point of weights 12 steps off"]
)
def test_a_fault_in_a_layer_is_named_with_its_cause_and_proven(
    fault: str, cnn: Subject, host: Session, tmp_path: Path
) -> None:
    edit, causes = EDITS[fault]
    layer = next(each for each in read_weights(cnn.made) if each.channels == 16)
    path = tmp_path / "planted.mnn"
    assert planted(cnn.made, layer, edit, path)
    failing = breaks(cnn, path, host)
    assert failing
    capture, found = look(cnn, path, host, tmp_path, failing)
    assert found.blame.layers == (layer.name,)
    assert found.blame.proof == "proven"
    assert found.cause is not None
    assert found.cause.code in causes
    assert capture.taps
    assert list(tmp_path.glob("exchange*")) == [], "what was made for the proof is gone"


def test_a_layer_inside_a_loop_is_named_though_its_tensors_cannot_be_seen(
    gru: Subject, host: Session, tmp_path: Path
) -> None:
    layer = next(each for each in read_weights(gru.made) if each.subgraph)
    path = tmp_path / "planted.mnn"
    assert planted(gru.made, layer, EDITS["scales of half of the channels 0"][0], path)
    capture, found = look(gru, path, host, tmp_path, breaks(gru, path, host))
    assert found.blame.layers[0] == f"{layer.subgraph}/{layer.name}"
    assert (found.blame.proof, found.cause and found.cause.code) == ("proven", "ZERO_SCALE")
    assert capture.loops


@pytest.mark.parametrize(
    ("effect", "code"), [(devices.restless, "STALE_MEMORY"), (devices.shorter, "SHAPE_WRONG"), (None, None)]
)
def test_a_device_whose_tensors_are_wrong_whatever_their_numbers(
    effect: devices.Effect | None, code: str | None, cnn: Subject, host: Session, tmp_path: Path
) -> None:
    tensor = next(each for each in read_model(cnn.made).ops if each.type == "Convolution").outputs[0]
    capture, _ = look(cnn, cnn.made, host, tmp_path, [])
    device = devices.Device(host, effect=effect, tensors=devices.behind(capture, tensor))
    _, found = look(cnn, cnn.made, host, tmp_path, [], device=device, stage="device")
    if code is None:
        assert (found.blame.layers, found.cause) == ((), None)
        return
    assert found.cause is not None
    assert (found.stage, found.cause.code) == ("device", code)
    assert tensor in next(each for each in capture.layers if each.key == found.blame.layers[0]).outputs


def test_memory_low_that_a_device_does_not_know_is_named(cnn: Subject, host: Session, tmp_path: Path) -> None:
    device = devices.Device(host, memory="normal")
    _, found = look(cnn, cnn.made, host, tmp_path, [], device=device, stage="device")
    assert found.cause is not None
    assert found.cause.code == "LOW_MEMORY_NOT_ENGAGED"


def test_sound_files_are_nobodys_fault(cnn: Subject, gru: Subject, host: Session, tmp_path: Path) -> None:
    for sound in (cnn, gru):
        assert breaks(sound, sound.made, host) == []
        _, found = look(sound, sound.made, host, tmp_path, [])
        assert (found.stage, found.cause) == (None, None)
        for facts in weight_facts(sound.made, sound.plain).values():
            assert facts.get("excess", 1) < 4


def test_batches_are_bounded_by_bytes_and_what_cannot_be_read_is_told(cnn: Subject, host: Session) -> None:
    spots = [
        Spot("plain", host, ModelFile(cnn.plain, "normal", precision="normal")),
        Spot("here", host, ModelFile(cnn.made, "low")),
    ]
    names = sides(read_model(cnn.made), read_model(cnn.plain)).common
    whole = Layers(spots[0], spots[1], None, cnn.cases).take(names)
    one_by_one = Layers(spots[0], spots[1], None, cnn.cases, batch_bytes=1).take([*names[:3], "no such tensor"])
    assert list(one_by_one.unseen) == ["no such tensor"]
    assert {tap.tensor for tap in one_by_one.taps} <= {tap.tensor for tap in whole.taps}
    told = {(tap.case, tap.tensor): tap.plain for tap in whole.taps}
    assert all(told[tap.case, tap.tensor] == tap.plain for tap in one_by_one.taps)


def wide(path: Path) -> Path:
    """x [1,3,256,256] -> y [1,16,256,256]: eight convolutions, each of whose outputs has 4 MB."""
    node, value, weight = generated._node, generated._value, generated._weight
    names = ["x", *(f"t{number}" for number in range(7)), "y"]
    nodes = [
        node("Conv", [a, f"w_{b}"], [b], name=f"conv_{b}", kernel_shape=[1, 1]) for a, b in itertools.pairwise(names)
    ]
    weights = [weight("w_t0", 16, 3, 1, 1), *(weight(f"w_{name}", 16, 16, 1, 1) for name in names[2:])]
    return generated.save(path, nodes, [value("x", [1, 3, 256, 256])], [value("y", [1, 16, 256, 256])], weights)


def test_looking_takes_at_most_50_mb_of_a_device_above_the_models_own_peak(host: Session, tmp_path: Path) -> None:
    plain = tmp_path / "wide.mnn"
    sources.convert(wide(tmp_path / "wide.onnx"), plain)
    names = sides(read_model(plain), read_model(plain)).common
    rng = np.random.default_rng(0)
    cases = [Case("one", {"x": rng.normal(size=(1, 3, 256, 256)).astype(np.float32)}, "random")]

    def took(free: float | None = None) -> LookMemory:
        with this_host() as far:
            spots = [Spot(where, host, ModelFile(plain, "normal")) for where in ("plain", "here")]  # type: ignore[arg-type]
            probe = Layers(*spots, Spot("there", far, ModelFile(plain, "normal")), cases)
            if free is not None:  # as a small device says
                learn = probe.there.learn

                def learned(cases: object) -> None:
                    learn(cases)
                    probe.there.free = free

                probe.there.learn = learned
            taken = probe.take(names)
        assert {tap.tensor for tap in taken.taps if tap.there is not None} >= {f"t{number}" for number in range(7)}
        assert taken.memory_mb is not None
        return taken.memory_mb

    usual, little = took(), took(free=40e6)
    assert usual.above <= 50, "62 MB with 24 MB of tensors at once"
    assert little.above < usual.above
    assert (little.batch, little.free) == (2.5, 40.0), "the less it has, the less is asked for at once"


def test_a_device_reduces_its_tensors_as_this_host_does(cnn: Subject, host: Session) -> None:
    spots = [Spot(where, host, ModelFile(cnn.made, "low")) for where in ("plain", "here", "there")]  # type: ignore[arg-type]
    names = sides(read_model(cnn.made), read_model(cnn.plain)).common
    for tap in Layers(spots[0], spots[1], spots[2], cnn.cases[:1]).take(names).taps:
        assert tap.there == tap.here
        assert tap.device is not None
        assert tap.device.error == 0
        assert tap.moved is not None
        assert tap.moved.error > 0 or tap.here is None or not tap.here.rms


def test_a_device_that_computes_something_else_in_one_layer_is_found_by_right_inputs_and_a_wrong_output(
    cnn: Subject, host: Session, tmp_path: Path
) -> None:
    layers = [each for each in read_weights(cnn.made) if each.kept == "quantized"]
    path, layer = tmp_path / "other.mnn", layers[1]
    assert planted(cnn.made, layer, EDITS["scales of a quarter of the channels times 3"][0], path)
    capture, _ = look(cnn, cnn.made, host, tmp_path, [])
    spots = [
        Spot("plain", host, ModelFile(cnn.plain, "normal", precision="normal")),
        Spot("here", host, ModelFile(cnn.made, "low")),
        Spot("there", host, ModelFile(path, "low")),
    ]
    names = sides(read_model(cnn.made), read_model(cnn.plain)).common
    taps = Layers(spots[0], spots[1], spots[2], cnn.cases).take(names).taps
    found = judge_layers(capture.model_copy(update={"stage": "device", "taps": tuple(taps)}), tuple(cnn.floor))
    assert found.blame.layers == (layer.name,)
    assert (found.blame.proof, found.cause and found.cause.code) == ("proven", "KERNEL_DIFFERS")


def test_the_whole_story_of_a_failing_variant(tmp_path: Path) -> None:
    model = generated.small_cnn(tmp_path / "small.onnx")
    request = Request(
        model, devices="local:", variants=("dynamic:2",), run_dir=tmp_path / "run", options=ONE_THREAD, latency=False
    )  # type: ignore[arg-type]
    found = diagnose(request)
    report = found.report
    assert report.verdict is Verdict.FAIL
    assert report.stage == "quantization"
    assert report.cause is not None
    assert report.table
    assert report.next is not None
    assert report.next.startswith("edgequant verify")
    assert len(sentences(report)) == 3
    run = open_run(tmp_path / "run")
    kept = run.layers("local:", request.variants[0])
    assert kept == found.capture
    assert {swap.cases for swap in kept.swaps if not swap.holds} == {2}, "what breaks in the worst is run no further"
    every = len([each for each in run.source.cases if each.name in run.source.held])
    assert {swap.cases for swap in kept.swaps if swap.holds and swap.what != "one"} == {every}, "what holds is, in all"
    check_folder(tmp_path / "run")
    assert {name for each in kept.spreads for name in each.counts} == {"plain", "here"}
    text = page_of(found.whole, found.folder.path, diagnoses=[report])
    for shown in ("Error along the graph", "Numbers of ", sentences(report)[0][:30]):
        assert shown in text
    if report.next.endswith(".json"):
        Recipe.read(Path(report.next.rpartition("recipe:")[2]))


def test_what_passes_blames_nobody(tmp_path: Path) -> None:
    model = generated.small_cnn(tmp_path / "small.onnx")
    request = Request(model, devices="local:", run_dir=tmp_path / "run", options=ONE_THREAD, latency=False)  # type: ignore[arg-type]
    report = diagnose(request).report
    assert (report.verdict.exit_code, report.stage, report.layers, report.random_inputs) == (0, None, [], True)
    assert json.loads(report.model_dump_json(by_alias=True))["schema"] == "edgequant.diagnosis/1"


@pytest.mark.nightly
def test_a_wrong_conversion_is_named_by_the_node_of_the_source(tmp_path: Path) -> None:
    model = generated.gru_reset_first(tmp_path / "gru.onnx")
    request = Request(model, devices="local:", run_dir=tmp_path / "run", options=ONE_THREAD, latency=False)  # type: ignore[arg-type]
    report = diagnose(request).report
    assert (report.verdict, report.stage, report.proof) == (Verdict.FAIL, "conversion", "proven")
    assert len(report.layers) == 1
    assert (tmp_path / "run" / "conversion-case" / "show_case.py").is_file()
    again = diagnose_run(tmp_path / "run").report
    assert (again.layers, again.proof) == (report.layers, "proven")
    assert (tmp_path / "run" / "conversion-case-2" / "show_case.py").is_file(), "the first is kept"


def test_a_conversion_that_is_wrong_at_the_ends_of_what_inputs_can_be_alone(tmp_path: Path) -> None:
    model = generated.rounded_halves(tmp_path / "halves.onnx")
    request = Request(model, devices="local:", run_dir=tmp_path / "run", options=ONE_THREAD, latency=False)  # type: ignore[arg-type]
    report = diagnose(request).report
    assert (report.verdict, report.stage, report.proof) == (Verdict.FAIL, "conversion", "proven")
    assert (report.layers, report.cases) == (["round"], ["whole"])
    assert report.cause is not None
    assert report.cause.code == "TIES_ROUNDED_OTHERWISE"


@pytest.mark.nightly
@pytest.mark.parametrize("kind", ["conv_cnn", "small_cnn", "gru", "lstm"])
@pytest.mark.parametrize("variant", ["dynamic:8", "dynamic:4"])
def test_every_kind_of_fault_in_generated_models(kind: str, variant: str, host: Session, tmp_path: Path) -> None:
    results = list(run(generated_subject(kind, variant, tmp_path, host), host, most=2))
    print(rates(results))
    wrong = [each for each in results if not each.right_layer]
    assert results
    assert len(wrong) <= len(results) // 20, wrong


def test_a_run_is_looked_into_as_it_was_asked_for(tmp_path: Path) -> None:
    """The command that a FAIL prints: nothing is verified anew, and no option that was given is forgotten."""
    model = generated.small_cnn(tmp_path / "small.onnx")
    cases = tmp_path / "cases.npz"
    shape = read_model(model).inputs[0].shape  # type: ignore[index]
    np.savez(cases, x=np.random.default_rng(3).standard_normal([size or 1 for size in shape or ()]).astype(np.float32))
    request = Request(
        model, devices="local:", variants=("dynamic:8", "dynamic:2"), run_dir=tmp_path / "run", options=ONE_THREAD,
        latency=False, inputs=cases, limits=("sqnr_db>=21",),
    )  # type: ignore[arg-type]  # fmt: skip
    report, folder = verify(request)
    assert report.verdict is Verdict.FAIL
    before = {path: path.read_bytes() for path in (folder.path / "captures").rglob("*.json")}
    found = diagnose_run(folder.path).report
    assert (found.variant, found.stage, found.verdict) == ("dynamic:2", "quantization", Verdict.FAIL)
    assert {path: path.read_bytes() for path in before} == before
    assert found.cases == ["cases"]
    words = shlex.split(found.next or "")
    assert words[words.index("--inputs") + 1] == str(cases)
    assert words[words.index("--limit") + 1] == "sqnr_db>=21"
    assert diagnose_run(folder.path, variant="dynamic:8").report.stage is None
    for more, code in (({"variant": "fp16"}, "OPTION_INVALID"), ({"device": "ssh://other"}, "OPTION_INVALID")):
        with pytest.raises(InputError) as caught:
            diagnose_run(folder.path, **more)
        assert caught.value.code == code
    model.write_bytes(generated.conv_cnn(tmp_path / "other.onnx").read_bytes())
    with pytest.raises(InputError) as caught:
        diagnose_run(folder.path)
    assert caught.value.code == "MODEL_CHANGED"


@pytest.mark.nightly
def test_causes_of_half_precision_and_outliers_are_named_and_their_twins_are_nobodys(
    cnn: Subject, host: Session, tmp_path: Path
) -> None:
    with this_host() as far:
        found = [
            *mechanisms.halves(cnn, host, far, tmp_path, 1),
            *mechanisms.cancellations(host, far, tmp_path, 4),
            *mechanisms.outlier_weights(cnn, host, tmp_path, 1),
        ]
    assert len(found) >= 9
    for each in found:
        assert each.found.stage == each.stage, each
        assert each.found.blame.layers[:1] == each.layers, each
        assert each.found.cause is not None
        assert each.found.cause.code in each.causes, each
        assert not blamed(each.twin), each


@pytest.mark.nightly
def test_loops_faulty_hosts_and_biases_beyond_int32_are_named_and_their_twins_are_nobodys(
    host: Session, tmp_path: Path
) -> None:
    with this_host() as far:
        found = list(rarer.planted_rarer(host, far, tmp_path, 1))
    told = {each.found.cause.code for each in found if each.found.cause is not None}
    assert told >= {"BIAS_OVERFLOWED", "RECURRENT_SENSITIVE", "HOST_KERNEL_DIFFERS", "SENSITIVE_LAYER"}
    for each in found:
        assert each.found.stage == each.stage, each
        assert not each.layers or each.found.blame.layers[0] in each.layers, each
        assert each.found.cause is not None
        assert each.found.cause.code in each.causes, each
        assert not blamed(each.twin), each


@pytest.mark.nightly
def test_states_that_are_lost_are_named_as_such() -> None:
    for each in mechanisms.states(("not_fed", "decayed", "left_over", "file_ignored")):
        assert (each.told, each.code in each.causes) == (each.stage, True), each
