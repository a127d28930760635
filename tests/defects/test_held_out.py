"""Networks in which no rule was tuned: faulty layers are named, and nobody is blamed of a sound file."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.defects.held_out import in_layers, twins
from tests.defects.layer_subjects import model_subject, this_host
from tests.defects.networks import NETWORKS, network

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(900)]


@pytest.mark.parametrize("name", NETWORKS)
def test_a_faulty_layer_is_named_in_a_network_of_another_kind(name: str, tmp_path: Path) -> None:
    source = network(name, tmp_path)
    with this_host() as host:
        of = model_subject(source, "dynamic:8", tmp_path, host, seed=5)
        assert not any(twins(of, source, host, tmp_path)), "a sound file"
        found = list(in_layers(of, name, host, tmp_path))
    assert len(found) >= 7
    assert not [str(each) for each in found if not all(each.right)]
