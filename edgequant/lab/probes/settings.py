"""The middle case with another number of threads, and once more after another model has been run.

Taken where a rollout is: what a long session does to a model, no single inference shows.
"""

from __future__ import annotations

from edgequant.archive.rollout import Setting
from edgequant.errors import RunnerError
from edgequant.lab.take import Taking, feed


class SettingsProbe:
    """The other model is the same file with another memory mode: other kernels, and memory of its own."""

    name = "settings"

    def take(self, taking: Taking) -> None:
        place, case = taking.place, taking.middle
        runner, model = place.runner, place.model
        try:
            threads = 1 if runner.threads > 1 else 2
            if threads <= (runner.facts.cores or 1):
                other = runner.load(
                    place.path, model.memory, precision=model.precision, sha256=model.sha256, threads=threads
                )
                outputs = runner.run(other, feed(other, case.inputs)).outputs
                runner.unload(other)
                taking.settings.append(
                    Setting(kind="threads", case=case.name, threads=threads, outputs=taking.refs(outputs))
                )
            beside = place.with_memory("normal" if model.memory == "low" else "low")
            runner.run(beside.loaded, feed(beside.loaded, taking.done[-1].inputs))
            outputs = runner.run(place.loaded, feed(place.loaded, case.inputs)).outputs
            beside.unload()
        except RunnerError as error:
            if error.code != "INFERENCE_FAILED":
                raise
            return  # that it runs as it was asked to has been seen
        taking.settings.append(Setting(kind="model", case=case.name, outputs=taking.refs(outputs)))
