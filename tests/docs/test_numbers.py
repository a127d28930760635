"""One truth for a number: what the other pages say of the measurements is what docs/quantization.md says."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
README, VERDICTS = (" ".join((ROOT / page).read_text().split()) for page in ("README.md", "docs/verdicts.md"))
TABLES = (ROOT / "docs" / "quantization.md").read_text().partition("\n## Measured\n")[2]


def measured(model: str, variant: str) -> tuple[str, str]:
    """dB of the worst output and the verdict, of the first table of the model."""
    (rows,) = re.findall(rf"^\*\*{model}\*\*\n\n\| variant \| MNN alone.*\n((?:\|.*\n)+)", TABLES, re.MULTILINE)
    (found,) = re.findall(rf"^\| `{re.escape(variant)}` .*?\| (-?[\d.]+) dB[^|]*\| (\w+) \|", rows, re.MULTILINE)
    return found  # type: ignore[no-any-return]


def test_what_dynamic_8_has_on_realistic_inputs() -> None:
    found = {name: measured(name, "dynamic:8") for name in ("enc", "erb_dec", "df_dec", "ppocr_cls", "ppocr_rec")}
    assert [name for name, (_, verdict) in found.items() if verdict == "PASS"] == ["erb_dec", "ppocr_cls", "ppocr_rec"]
    assert "erb_dec, cls and rec pass" in VERDICTS
    assert f"enc ({found['enc'][0]} dB) and df_dec ({found['df_dec'][0]} dB) fail" in VERDICTS
    assert f"its worst output, `lsnr`, has [{found['enc'][0]} dB](docs/quantization.md#measured)" in README
    (lines,) = re.findall(r"^\| `dynamic:8` \| [\d.]+ % of \d+ \| ([\d.]+) dB", TABLES, re.MULTILINE)
    assert f"which has {found['ppocr_rec'][0]} dB on four lines of text, has {lines} dB on the worst of 60" in VERDICTS


def test_fp16_passes_on_all_of_them() -> None:
    models = re.findall(r"^\*\*(\w+)\*\*\n\n\| variant \| MNN alone", TABLES, re.MULTILINE)
    assert len(models) == 5
    assert {measured(model, "fp16")[1] for model in models} == {"PASS"}
    assert "As `fp16` all five pass." in VERDICTS


def test_where_no_data_is_given_inputs_are_called_random() -> None:
    headline, _, rest = (ROOT / "README.md").read_text().partition("\n## Try it")
    assert rest
    assert "That is on random inputs" in headline
