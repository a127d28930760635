"""A run of the history into MLflow, for teams whose experiments are there."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgequant.errors import EdgequantError, InputError
from edgequant.history.adapt import read_folder
from edgequant.history.entry import DOCUMENTS, Entry, Trial

_TAG = "edgequant.id"
_NAME = re.compile(r"[^A-Za-z0-9_. /-]")
_MOST_NAME, _BATCH = 200, 900


@dataclass(frozen=True)
class Logged:
    """run: of MLflow, the parent of those of its trials.  new: it was not there before."""

    run: str
    trials: int
    new: bool


def log_run(run_dir: Path, uri: str | None, experiment: str) -> Logged:
    """Log the document of a folder: a run of MLflow for it, with the document as its artifact, and one below it for
    each trial, with its numbers.  What was logged before is found by its hash, and left as it is.

    uri: of the tracking server; None for MLflow's own default.  Raises InputError (MLFLOW_MISSING, RUN_...),
    EdgequantError (MLFLOW_FAILED).
    """
    entry = read_folder(run_dir)
    try:
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient
    except ImportError:
        raise InputError(
            "MLFLOW_MISSING", "MLflow is not installed", hint="pip install 'edgequant[mlflow]' brings it along."
        ) from None
    try:
        client = MlflowClient(uri)
        found = client.get_experiment_by_name(experiment)
        whose = client.create_experiment(experiment) if found is None else found.experiment_id
        before = client.search_runs([whose], f"tags.`{_TAG}` = '{entry.id}'", max_results=1)
        if before:
            return Logged(before[0].info.run_id, len(entry.trials), new=False)
        return Logged(_log(client, whose, entry, run_dir), len(entry.trials), new=True)
    except (MlflowException, OSError) as error:
        raise EdgequantError(
            "MLFLOW_FAILED", f"{uri or 'MLflow'}: {error}", hint="Look at the tracking URI, and at the server's log."
        ) from None


def _log(client: Any, experiment: str, entry: Entry, run_dir: Path) -> str:
    when = int(entry.created.timestamp() * 1000)
    shared = {
        "model": entry.model, "model_sha256": entry.model_sha256, "edgequant": entry.edgequant, "mnn": entry.mnn,
    }  # fmt: skip
    parent = _begun(client, experiment, when, f"{entry.kind} {entry.model}", {"edgequant.verdict": entry.verdict})
    _batch(client, parent, {}, shared)
    for trial in entry.trials:
        tags = {"edgequant.verdict": trial.verdict, "mlflow.parentRunId": parent}
        tags["edgequant.invalid_numbers"] = str(sum(bool(each.why) for each in trial.values))
        child = _begun(client, experiment, when, f"{trial.variant} on {trial.device}", tags)
        told = {"variant": trial.variant, "device": trial.device, "cpu": trial.cpu, "os": trial.os}
        _batch(client, child, metrics_of(trial), shared | told, when)
        client.set_terminated(child, end_time=when)
    folder = run_dir.parent if run_dir.is_file() else run_dir
    document = run_dir if run_dir.is_file() else next(folder / name for name in DOCUMENTS if (folder / name).is_file())
    client.log_artifact(parent, str(document))
    client.set_terminated(parent, end_time=when)
    client.set_tag(parent, _TAG, entry.id)  # last: what was broken off is logged again
    return parent


def _begun(client: Any, experiment: str, when: int, name: str, tags: Mapping[str, str]) -> str:
    made = client.create_run(experiment, start_time=when, run_name=name[:_MOST_NAME], tags=dict(tags))
    return str(made.info.run_id)


def metrics_of(trial: Trial) -> dict[str, float]:
    """METRIC or METRIC/OUTPUT -> value, of what is valid; names as MLflow takes them, and no two alike."""
    found: dict[str, float] = {}
    for each in trial.values:
        if each.why:
            continue
        plain = _NAME.sub("_", each.output)[:_MOST_NAME].strip("/. ") or "_"
        name = f"{each.metric}/{plain}" if each.output else each.metric
        while name in found:
            name += "_"
        found[name] = each.value
    return found


def _batch(client: Any, run: str, metrics: Mapping[str, float], params: Mapping[str, str], when: int = 0) -> None:
    from mlflow.entities import Metric, Param

    told = [Param(key, value) for key, value in params.items() if value]
    numbers = [Metric(key, value, when, 0) for key, value in metrics.items()]
    client.log_batch(run, params=told)
    for at in range(0, len(numbers), _BATCH):
        client.log_batch(run, metrics=numbers[at : at + _BATCH])
