"""The report on a terminal: complete, harmless and readable at any width."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from rich.text import Text

from edgequant import plain
from edgequant.findings import Finding
from edgequant.judge.latency import latency_summary
from edgequant.judge.verdict import Verdict
from edgequant.report import model
from edgequant.report.console import render
from edgequant.report.lines import Lines

quick = settings(deadline=None, max_examples=50)


def an_output(sqnr: float = 30.0, verdict: str = "PASS", **more) -> model.OutputReport:
    return model.OutputReport(
        **{"cosine": 0.999, "sqnr_db": sqnr, "max_abs": 0.1, "rel_max": 0.02, "mean_abs": 0.01, "p99_abs": 0.05}
        | {"verdict": verdict, "worst_case": "case-1", "cases": 2}
        | more
    )


def a_report(outputs: dict[str, model.OutputReport], **run) -> model.Report:
    verdict = "FAIL" if any(o.verdict is Verdict.FAIL for o in outputs.values()) else "PASS"
    one = model.Run(
        **{"device": model.DeviceInfo(uri="ssh://pi@board:22", cpu="Cortex-A76"), "variant": "dynamic:8"}
        | {"verdict": verdict, "outputs": outputs}
        | run
    )
    return model.Report(
        verdict=one.verdict,
        edgequant="0.1.0",
        model=model.ModelInfo(path="enc.onnx", sha256="0" * 64),
        cases=[model.CaseInfo(name="case-1", source="random seed 0")],
        runs=[one],
    )


def shown(report: model.Report, width: int = 100, encoding: str = "utf-8", **options) -> str:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, errors="strict", newline="\n")
    render(report, Console(file=stream, width=width), **options)
    stream.flush()
    return raw.getvalue().decode(encoding)


@pytest.mark.parametrize("width", [40, 60, 80, 100, 128, 160, 250])
def test_every_number_is_there_at_every_width_and_no_line_is_too_long(width):
    stages = {"out": model.ErrorEntry(sqnr_db=77.7)}
    report = a_report(
        {"out": an_output(), "nan": an_output(verdict="FAIL", nan=17), "ids": an_output(kind="int", mismatch=0.25)},
        errors=model.ErrorsByStage(conversion=stages, quantization=stages, device=stages),
    )
    text = shown(report, width)
    for word in ("SQNR dB", "30.0", "0.99900", "rel max", "max abs", "17/0!", "p99 abs", "77.7", "0.25", "case-1"):
        assert word in text, word
    assert max(len(line) for line in text.splitlines()) <= width
    assert not any(line.endswith(" ") for line in text.splitlines())


def test_plain_text_has_no_escapes_and_says_in_marks_what_colour_says():
    limits = [
        model.LimitReport(metric="sqnr_db", op=">=", bound=20, value=7, verdict="FAIL"),
        model.LimitReport(metric="cosine", op=">=", bound=0.99, value=0.9905, verdict="MARGINAL"),
    ]
    text = shown(a_report({"out": an_output(7.0, "FAIL", cosine=0.9905, limits=limits)}))
    assert "\x1b" not in text
    assert "7.0!" in text
    assert "0.99050~" in text
    assert "! breaks its limit" in text


def test_forty_outputs_worst_first_and_the_rest_summed_up():
    outputs = {f"out_{i:02}": an_output(50.0 - i) for i in range(39)} | {"bad": an_output(60.0, "FAIL")}
    text = shown(a_report(outputs))
    rows = [line.split()[0] for line in text.splitlines() if line.startswith(("  out_", "  bad"))]
    assert rows[:3] == ["bad", "out_38", "out_37"]
    assert "28 more outputs not shown: 28 PASS, SQNR 23.0 to 50.0 dB" in text
    assert "out_00" in shown(a_report(outputs), verbose=True)


@pytest.mark.parametrize("width", [60, 80, 160])
def test_long_names_are_never_cut(width):
    names = ["/encoder/" + "block/" * 30 + end for end in ("MatMul_0", "MatMul_1")]
    text = shown(a_report({name: an_output() for name in names}), width)
    joined = "".join(line.strip() for line in text.splitlines())
    assert all(name in joined for name in names)


HOSTILE = "[bold red]x[/] \x1b[2J\x1b]0;owned\x07 \u202egnp.exe\u200b \r\n [link=http://x]"


def test_names_from_a_model_can_neither_style_nor_steer_the_terminal():
    finding = Finding(code="X", severity="warn", where=HOSTILE, message=HOSTILE, remedy=HOSTILE)
    report = a_report(
        {HOSTILE: an_output(worst_case=HOSTILE)},
        findings=[finding],
        low_memory_why=HOSTILE,
        error=None,
        device=model.DeviceInfo(uri=HOSTILE, cpu=HOSTILE, features=[HOSTILE]),
    )
    text = shown(report, 200, path=Path(HOSTILE))
    assert not set(text) & set("\x1b\x07\r\u202e\u200b")
    assert "[bold red]x[/]" in text
    assert "\\x1b[2J" in text


def test_a_terminal_that_knows_ascii_only():
    text = shown(a_report({"出力": an_output()}, variant="dynamic:8"), encoding="ascii")
    assert "\\u51fa\\u529b" in text


@quick
@given(st.text(max_size=30), st.text(max_size=30))
def test_two_names_never_look_the_same(one, other):
    assert (plain.name(one) == plain.name(other)) == (one == other)


@pytest.mark.parametrize(
    ("one", "other"), [("a\x1b", "a\\x1b"), ("a", "a "), ("a b", "a  b"), ("", '""'), ("a\n", "a")]
)
def test_names_that_could_be_mistaken(one, other):
    assert plain.name(one) != plain.name(other)


@quick
@given(st.text(max_size=40), st.integers(20, 200))
def test_any_name_at_any_width_prints(name, width):
    shown(a_report({name: an_output()}), width)


def test_rounding_never_flatters():
    assert plain.metric("cosine", 0.9999999) == "0.99999"
    assert plain.decibel(19.99) == "19.9"
    assert plain.metric("cosine", None) == plain.decibel(None) == plain.amount(None) == "-"


def test_findings_of_one_kind_stand_together_with_one_remedy():
    findings = [
        Finding(code="LIMIT_EXCEEDED", severity="fail", where=f"out{i}", message="too low", remedy="More bits.")
        for i in range(9)
    ]
    text = shown(a_report({"out": an_output()}, findings=findings))
    assert text.count("LIMIT_EXCEEDED") == text.count("More bits.") == 1
    assert "and in 6 more places" in text


def test_measurements():
    latency = latency_summary([1.5] * 20, 3, 40.0, 9.0, why_invalid=["emulated"])
    text = shown(
        a_report(
            {"out": an_output()},
            latency_ms=latency,
            low_memory_engaged=False,
            low_memory_why="same bytes as memory normal",
            memory_mb=model.Memory(session=8.4),
        )
    )
    assert "p50 1.5, p90 1.5" in text
    assert "p99" not in text.split("latency")[1].split("\n")[0]
    assert "not valid: emulated" in text
    assert "NOT engaged: same bytes" in text
    assert "session 8.4 MB" in text


def test_a_run_that_could_not_be_run():
    failure = model.Failure(code="SSH_TIMEOUT", message="no answer", hint="Is it powered?")
    text = shown(a_report({}, verdict="ERROR", error=failure, latency_why="the run failed"), path=Path("r/report.json"))
    assert "SSH_TIMEOUT  no answer" in text
    assert "-> Is it powered?" in text
    assert "ERROR  1 run: 1 ERROR" in text
    assert "Report: r/report.json" in text


def several(*runs: model.Run) -> model.Report:
    report = a_report({"out": an_output()})
    return report.model_copy(update={"runs": list(runs)})


def test_the_overview_breaks_no_word_and_tells_times_in_full():
    def one(variant: str, p50: float, output: str) -> model.Run:
        report = a_report(
            {output: an_output(21.37)},
            latency_ms=latency_summary([p50] * 5, 0, None, None, why_invalid=[]),
            memory_mb=model.Memory(model_file=12.34, session=5.67),
        )
        return report.runs[0].model_copy(update={"variant": variant})

    report = several(
        one("dynamic:8,block=32,hqq", 1234.5, "a_rather_long_name_of_an_output/concat:0"), one("fp16", 0.0123, "o")
    )
    for width in (40, 60, 80, 120):
        text = shown(report, width)
        tail = text[text.index("All runs on ") :]
        assert "1234" in tail
        assert "e+0" not in text
        assert "0.0123" in tail
        for word in ("dynamic:8,block=32,hqq", "ssh://pi@board:22", "session MB", "worst output"):
            assert word in tail, word
        assert max(len(line) for line in text.splitlines()) <= width
    rows = shown(report, 80).split("Report:")[0].splitlines()[-6:]
    assert any("dynamic:8,block=32,hqq" in row for row in rows)
    assert any("12.34" in row and "5.7" in row and "21.3" in row for row in rows)


LONG = "static:8,calib=percentile,asym,keep=20,skip=/encoder/layers.0/first/Conv_output_0"
LONGER = f"{LONG},skip=/decoder/layers.7/last/ConvTranspose_output_0,samples=200"


def beside(*variants: str, uri: str | None = None, apart: bool = False, timed: bool = True) -> list[model.Run]:
    """Runs of one output, or, apart, each with another one's name."""
    latency = latency_summary([1234.5] * 5, 0, None, None, why_invalid=[]) if timed else None
    memory = model.Memory(model_file=123.45, session=1234.5)
    device = {} if uri is None else {"device": model.DeviceInfo(uri=uri)}
    reports = [
        a_report(
            {f"save_infer_model/scale_{number if apart else 0}.tmp_1": an_output(-21.37)},
            latency_ms=latency,
            memory_mb=memory,
            verdict="INCONCLUSIVE",
        )
        for number in range(len(variants))
    ]
    return [
        report.runs[0].model_copy(update={"variant": variant, **device})
        for report, variant in zip(reports, variants, strict=True)
    ]


NUMBERS = re.compile(r"^(.*?)  INCONCLUSIVE +123\.45 +1234\.5 +1234 +-21\.4  save_infer_m\.\.\.tmp_1$")


@pytest.mark.parametrize("width", [80, 100, 120, 300])
def test_long_variants_leave_the_numbers_of_the_overview_on_one_line(width: int) -> None:
    report = several(*beside(LONG, LONGER, "kl", apart=True))
    text = shown(report, width)
    rows = text[text.index("All runs on ssh://pi@board:22") :].split("\n\n")[0].splitlines()[1:]
    assert max(map(len, rows)) <= width
    assert len([row for row in rows if row.startswith("  run ")]) == 1
    numbers = [found for row in rows if (found := NUMBERS.match(row))]
    assert len(numbers) == 3
    assert len({len(found[1]) for found in numbers}) == 1  # aligned
    assert numbers[-1][1].strip() == "kl"  # a short name stays beside its numbers
    names = [row.strip() for row in rows if row.strip().startswith("static")]
    assert len(names) == 2
    assert all(name.split("  ")[0].startswith("static:8,calib=percentile") for name in names)
    assert "samples=200" in names[1]
    # In full at the head of its run.
    assert LONGER in text.replace("\n", "")


@pytest.mark.parametrize("width", [80, 120])
def test_a_worst_output_that_all_share_is_named_once_and_leaves_room_for_the_names(width: int) -> None:
    text = shown(several(*beside("dynamic:8", "dynamic:8,block=32", timed=False)), width)
    rows = text[text.index("All runs on ") :].split("\n\n")[0].splitlines()[1:]
    assert max(map(len, rows)) <= width
    assert rows[0] == "  worst output: save_infer_model/scale_0.tmp_1"
    # Not timed, so no column for times.
    assert rows[1].split() == ["run", "verdict", "file", "MB", "session", "MB", "worst", "dB"]
    numbers = ["INCONCLUSIVE", "123.45", "1234.5", "-21.4"]
    assert [row.split() for row in rows[2:]] == [["dynamic:8", *numbers], ["dynamic:8,block=32", *numbers]]


def test_a_worst_output_is_shared_by_all_runs_or_by_none() -> None:
    failure = model.Failure(code="SSH_TIMEOUT", message="no answer")
    failed = a_report({}, verdict="ERROR", error=failure).runs[0]
    for others in ([*beside("fp16", "float", apart=True)], [*beside("fp16"), failed], [failed, failed]):
        tail = shown(several(*others), 120).split("All runs on")[1]
        assert "worst output: " not in tail
        assert "worst output\n" in tail
        assert ("SSH_TIMEOUT" in tail) == (failed in others)
    # One that was timed is enough for the column.
    tail = shown(several(*beside("fp16"), *beside("float", timed=False)), 120).split("All runs on")[1]
    assert "p50 ms" in tail


def test_variants_that_differ_only_in_the_middle_are_not_cut() -> None:
    one, two = (LONGER.replace("decoder", name) for name in ("decoder", "encoder"))
    text = shown(several(*beside(one, two)), 80)
    tail = text[text.index("All runs") :].replace("\n  ", "").replace("\n", "")
    assert one in tail
    assert two in tail


def test_the_device_stands_in_the_overview_where_there_are_several() -> None:
    runs = [*beside("fp16", uri="local:"), *beside("fp16", uri="adb://X")]
    tail = shown(several(*runs), 100).split("All runs")[1]
    assert "fp16 on local:" in tail
    assert "fp16 on adb://X" in tail


@pytest.mark.parametrize("room", range(10, 30))
def test_cut_in_the_middle(room: int) -> None:
    console = Console(width=80, file=io.StringIO())
    lines = Lines(console, 1, False)
    for name in ("short", "a" * 40, "\u8f93" * 30, "ab\u8f93" * 12, "e\u0301" * 40):
        whole = Text(name)
        shown = lines.cut(whole, room)
        assert shown.cell_len <= room
        if whole.cell_len > room:
            head, tail = shown.plain.split("...")
            assert whole.plain.startswith(head.rstrip())
            assert whole.plain.endswith(tail)
            assert shown.cell_len >= room - 2
        else:
            assert shown.plain == name


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0123, "0.0123"), (1.5, "1.5"), (99.94, "99.9"), (999.7, "1000"), (1234.4, "1234"), (123456.0, "123456"),
     (0.0, "0"), (None, "-"), (0.00001234, "0.000012")],
)  # fmt: skip
def test_milliseconds_are_never_in_powers_of_ten(value, text):
    assert plain.milliseconds(value) == text


def test_the_legend_names_what_is_in_the_table_alone():
    stages = {"out": model.ErrorEntry(sqnr_db=77.7)}
    here = a_report({"out": an_output()}, errors=model.ErrorsByStage(conversion=stages, quantization=stages))
    text = shown(here, 160)
    assert "conv, quant: SQNR in dB that conversion and quantization leave" in text
    assert "dev" not in text.replace("device", "")
    everywhere = a_report(
        {"out": an_output()}, errors=model.ErrorsByStage(conversion=stages, quantization=stages, device=stages)
    )
    assert "conv, quant, dev: SQNR in dB that conversion, quantization and the device leave" in shown(everywhere, 160)
    alone = a_report({"out": an_output()}, errors=model.ErrorsByStage(device=stages))
    assert "dev: SQNR in dB that the device leaves" in shown(alone, 160)


def test_tables_say_that_their_numbers_are_of_the_worst_case():
    text = shown(a_report({"out": an_output()}), 80)
    assert "each number: worst case" in text
    text = shown(several(*beside("fp16", "float")), 80)
    assert "All runs on ssh://pi@board:22, each by its worst output in its worst case\n" in text


def test_the_model_is_loaded_not_the_machine():
    text = shown(
        a_report({"out": an_output()}, latency_ms=latency_summary([3.0] * 5, 0, 12.0, 4.0, why_invalid=[])), 160
    )
    assert "model load 12, first 4" in text


def test_a_phone_is_called_what_is_written_on_it() -> None:
    device = model.DeviceInfo(
        uri="adb://X", cpu="2x Cortex-A76", facts={"manufacturer": "Acme", "model": "Acme P9\x1b[2J", "android": "15"}
    )
    run = model.Run(device=device, variant="dynamic:8", verdict=Verdict.ERROR)
    text = io.StringIO()
    report = model.Report(
        verdict=Verdict.ERROR, edgequant="0", model=model.ModelInfo(path="m", sha256="0" * 64), runs=[run]
    )
    render(report, Console(file=text, width=100))
    assert "Acme P9\\x1b[2J (Android 15), 2x Cortex-A76" in text.getvalue()
