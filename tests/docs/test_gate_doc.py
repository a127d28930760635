"""docs/gate.md and the example of `accept`: what they show can be taken as it stands."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest

from edgequant.cli.gating import EXAMPLE_GATE
from edgequant.plan.accept import expand
from edgequant.spec.accept import AcceptSpec, BenchEntry, DeviceEntry, ModelEntry, TaskEntry, VariantEntry
from edgequant.spec.accept_file import load_accept

GATE = Path(__file__).parents[2] / "docs" / "gate.md"
SPECS = [each for each in re.findall(r"```yaml\n(.*?)```", GATE.read_text(), re.DOTALL) if "models:" in each]


@pytest.mark.parametrize("number", range(len(SPECS)))
def test_every_spec_it_shows_is_one(number: int, tmp_path: Path) -> None:
    path = tmp_path / "gate.yaml"
    path.write_text(textwrap.dedent(SPECS[number]))
    assert expand(load_accept(path)).parts


def test_there_are_specs_and_snippets() -> None:
    text = GATE.read_text()
    assert len(SPECS) >= 4
    assert all(name in text for name in ("GitLab:", "GitHub Actions:", "Jenkins:"))


def test_the_example_is_a_spec_and_has_every_key() -> None:
    assert load_accept(EXAMPLE_GATE).name == "keyword spotter 2.4"
    text = EXAMPLE_GATE.read_text()
    for model in (AcceptSpec, ModelEntry, VariantEntry, DeviceEntry, TaskEntry, BenchEntry):
        for key in model.model_fields:
            if key != "governor":
                assert re.search(rf"[\s{{,#]{key}:", text), f"{model.__name__}.{key}"
