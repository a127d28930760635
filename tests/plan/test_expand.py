"""From an acceptance spec to what is run: whose limits and options a trial gets, and what shares a request."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from edgequant.errors import InputError
from edgequant.plan.accept import Expanded, expand
from edgequant.spec.accept import TrialKey
from edgequant.spec.accept_file import load_accept

HEAD = """
models: {m: m.onnx}
variants: ["dynamic:8", fp16]
devices: {host: "local:", board: "ssh://board"}
"""


def expanded(tmp_path: Path, text: str) -> Expanded:
    path = tmp_path / "gate.yaml"
    path.write_text(textwrap.dedent(text))
    return expand(load_accept(path))


def told(found: Expanded) -> list[tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]]:
    return [
        (part.request.devices, tuple(map(str, part.request.variants)), tuple(map(str, part.request.limits)))
        for part in found.parts
    ]


def test_what_shares_everything_is_one_request(tmp_path: Path) -> None:
    found = expanded(tmp_path, HEAD + 'rules: ["sqnr_db >= 25", "size_mb <= 3"]')
    assert told(found) == [(("local:", "ssh://board"), ("dynamic:8", "fp16"), ("sqnr_db>=25",))]
    assert [part.name for part in found.parts] == ["m"]
    assert found.parts[0].request.model == tmp_path / "m.onnx"
    assert found.parts[0].trials["ssh://board", "fp16"] == TrialKey("m", "fp16", "board")
    assert (found.benches, found.informative, found.tasks) == ((), frozenset(), {})


def test_a_limit_is_that_of_the_trials_it_is_meant_for(tmp_path: Path) -> None:
    found = expanded(tmp_path, HEAD + """
rules:
  - {rule: "sqnr_db >= 25", variant: "dynamic:*"}
  - {rule: "sqnr_db >= 28", variant: "dynamic:*", device: board}
  - {rule: "sqnr_db >= 99", device: board, required: false}
""")  # fmt: skip
    assert told(found) == [
        (("local:",), ("dynamic:8",), ("sqnr_db>=25",)),
        (("ssh://board",), ("dynamic:8",), ("sqnr_db>=28",)),
        (("local:", "ssh://board"), ("fp16",), ()),
    ]
    assert [part.name for part in found.parts] == ["m-1", "m-2", "m-3"]


def test_the_nearest_option_wins_key_by_key(tmp_path: Path) -> None:
    found = expanded(tmp_path, """
models: {m: {path: m.onnx, options: {seed: 4}}}
variants: [{variant: "dynamic:8", options: {threads: 2, repeat: 5, seed: 2}}]
devices: {board: {uri: "ssh://board", options: {threads: 3, seed: 3}, device_options: {python: /opt/python}}}
options: {threads: 1, warmup: 9, seed: 1}
device_options: {wait: 5, python: /usr/bin/python3}
rules: ["sqnr_db >= 25"]
""")  # fmt: skip
    (part,) = found.parts
    options, access = part.request.options, part.request.access
    assert (options.threads, options.repeat, options.warmup, options.seed) == (3, 5, 9, 4)
    assert (access.python, access.wait) == ("/opt/python", 5)


def test_options_of_one_device_only_are_its_own_request(tmp_path: Path) -> None:
    found = expanded(tmp_path, """
models: {m: m.onnx}
variants: ["dynamic:8", fp16]
devices:
  host: "local:"
  board: {uri: "ssh://board", device_options: {python: /opt/python}, variants: [fp16]}
rules: ["sqnr_db >= 25"]
""")  # fmt: skip
    assert told(found) == [
        (("local:",), ("dynamic:8", "fp16"), ("sqnr_db>=25",)),
        (("ssh://board",), ("fp16",), ("sqnr_db>=25",)),
    ]


def test_two_names_for_one_place_are_two_requests(tmp_path: Path) -> None:
    found = expanded(tmp_path, """
models: {m: m.onnx}
variants: ["dynamic:8", {variant: "dynamic:8", name: again}]
devices: {one: "local:", two: "local:"}
rules: ["sqnr_db >= 25"]
""")  # fmt: skip
    assert sum(len(part.trials) for part in found.parts) == 4
    assert len(found.trials) == 4
    assert all(len(part.request.devices) * len(part.request.variants) == len(part.trials) for part in found.parts)


def test_float_is_run_beside_what_is_held_against_it_and_measured_first(tmp_path: Path) -> None:
    found = expanded(tmp_path, HEAD + """
rules:
  - "sqnr_db >= 25"
  - {rule: "latency_ms.p50 <= 0.9 * float", variant: "dynamic:*", device: host}
  - {rule: "latency_ms.p50 <= 9", variant: fp16, device: board}
""")  # fmt: skip
    beside = TrialKey("m", "float", "host")
    assert found.informative == {beside}
    assert told(found) == [
        (("local:",), ("dynamic:8", "fp16", "float"), ("sqnr_db>=25",)),
        (("ssh://board",), ("dynamic:8", "fp16"), ("sqnr_db>=25",)),
    ]
    assert [(each.request.devices, each.trials) for each in found.benches] == [
        (("local:",), (beside, TrialKey("m", "dynamic:8", "host"))),
        (("ssh://board",), (TrialKey("m", "fp16", "board"),)),
    ]


def test_what_an_emulated_device_takes_is_not_measured(tmp_path: Path) -> None:
    found = expanded(tmp_path, """
models: {m: m.onnx}
variants: ["dynamic:8"]
devices: {a76: "emulated:cortex-a76"}
rules: ["latency_ms.p50 <= 9"]
""")  # fmt: skip
    assert found.benches == ()


def test_a_task_is_asked_of_the_trials_with_a_rule_on_it(tmp_path: Path) -> None:
    found = expanded(tmp_path, HEAD + """
tasks: {cer: {function: "metrics.py:cer", better: lower}}
rules:
  - {rule: "task:cer.words <= 0.1", device: host, variant: fp16}
  - {rule: "task:cer <= float + 0.1", device: board, variant: fp16}
""")  # fmt: skip
    assert found.tasks == {
        TrialKey("m", "fp16", "host"): ("cer",),
        TrialKey("m", "fp16", "board"): ("cer",),
        TrialKey("m", "float", "board"): ("cer",),
    }


def test_only_what_did_not_pass_is_run_again(tmp_path: Path) -> None:
    (part,) = expanded(tmp_path, HEAD + 'rules: ["sqnr_db >= 25"]').parts
    keys = part.trials
    again = part.only([keys["local:", "dynamic:8"], keys["ssh://board", "dynamic:8"], keys["ssh://board", "fp16"]])
    assert [(each.request.devices, tuple(map(str, each.request.variants))) for each in again] == [
        (("local:",), ("dynamic:8",)),
        (("ssh://board",), ("dynamic:8", "fp16")),
    ]
    assert part.only(list(keys.values())) == [part]


def test_what_contradicts_itself_when_it_comes_together_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        expanded(tmp_path, """
models: {m: m.onnx}
variants: ["dynamic:8"]
devices: {board: {uri: "ssh://board", device_options: {python: /opt/python}}}
device_options: {runtime: pack}
rules: ["sqnr_db >= 25"]
""")  # fmt: skip
    assert caught.value.code == "SPEC_INVALID"
    assert "m, dynamic:8, board" in caught.value.message
