"""A run in MLflow has the numbers of its report; logged twice it is there once."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgequant.errors import EdgequantError
from edgequant.history.adapt import read_folder
from edgequant.history.entry import Trial, Value
from edgequant.jobs.mlflow_log import log_run, metrics_of
from tests.recorded import unpacked


def test_names_are_such_as_mlflow_takes_and_never_alike() -> None:
    values = [Value(name, "sqnr_db", 1.0) for name in ("a:b", "a;b", "../..", "\x1b", "", "x" * 999)]
    found = metrics_of(Trial("fp16", "local:", "PASS", values=(*values, Value("y", "cosine", 1.0, "not valid"))))
    assert len(found) == len(values)
    assert all(len(name) <= 250 and name.isascii() and ".." not in name for name in found)


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["cnn", "gru"])
def test_it_is_there_once_with_its_numbers(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import tracking  # `make nightly` installs it

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    uri, folder = (tmp_path / "store").as_uri(), unpacked(name, tmp_path)
    first, again = log_run(folder, uri, "e"), log_run(folder / "report.json", uri, "e")
    assert (first.new, again.new, again.run) == (True, False, first.run)
    client, entry = tracking.MlflowClient(uri), read_folder(folder)
    (artifact,) = client.list_artifacts(first.run)
    assert artifact.path == "report.json"
    assert client.get_run(first.run).data.tags["edgequant.verdict"] == entry.verdict
    whose = client.get_experiment_by_name("e").experiment_id
    children = client.search_runs([whose], f"tags.`mlflow.parentRunId` = '{first.run}'")
    assert len(children) == len(entry.trials)
    for trial in entry.trials:
        (run,) = [
            each
            for each in children
            if (each.data.params["variant"], each.data.params["device"]) == (trial.variant, trial.device)
        ]
        assert run.data.metrics == metrics_of(trial)
        assert run.data.tags["edgequant.verdict"] == trial.verdict
        assert run.info.status == "FINISHED"
    with pytest.raises(EdgequantError) as caught:
        log_run(folder, "nonsense://x", "e")
    assert caught.value.code == "MLFLOW_FAILED"
