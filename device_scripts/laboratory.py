"""What an engine can do for a measurement beyond inferences: look at its machine, set it up, and take its time."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from typing import Any, List

import MNN

from . import bench, clusters, conditions, governor, operators, sustain
from .process import Memory
from .server import Answer, Job, JobError

EVENT_SECONDS = 1.0


class Laboratory(ABC):
    """Jobs of the engine; it has the models."""

    _memory: Memory

    @abstractmethod
    def _model(self, job: Job) -> Any:
        """The loaded model that a job is about."""

    def job_conditions(self, job: Job) -> Answer:
        """What may disturb a timing now, and known work."""
        return {"conditions": conditions.read(), "work_ms": conditions.known_work()}, None

    def job_clusters(self, job: Job) -> Answer:
        return {"clusters": clusters.read(self._usable())}, None

    def job_governor(self, job: Job) -> Answer:
        """Set it on all cores this process may use, until it ends; null gives back what was there."""
        name = job.header["name"]
        if name is None:
            return {"restored": governor.give_back(of=os.getpid())}, None
        return governor.take(str(name), self._usable()), None

    @abstractmethod
    def _usable(self) -> List[int]:
        """CPUs this process may use."""

    def job_bench(self, job: Job) -> Answer:
        """One block of a measurement: see `bench.block`."""
        model = self._model(job)
        variables = model.feed(job.tensors)
        answer, results = bench.block(lambda: model.timed(variables), job.header, job.emit, EVENT_SECONDS)
        return dict(answer, memory=self._memory.read(anew=True)), model.read(results)

    def job_session_memory(self, job: Job) -> Answer:
        """What MNN says a session of this model needs, in MB.  Only for models without subgraphs.

        Only the Interpreter tells, so the model is loaded a second time; the host asks for this after it has measured
        everything else.
        """
        model = self._model(job)
        unknown = [name for name in job.header["shapes"] if name not in model.input_names]
        if unknown:
            raise JobError("INPUT_NAMES", "unknown inputs %s" % unknown)
        interpreter = MNN.Interpreter(model.path)
        session = interpreter.createSession(dict(model.config))
        if session is None:
            raise JobError("SESSION_FAILED", "MNN's Interpreter cannot make a session")
        for name, shape in job.header["shapes"].items():
            interpreter.resizeTensor(interpreter.getSessionInput(session, name), tuple(shape))
        interpreter.resizeSession(session)
        return {"session_mb": float(interpreter.getSessionInfo(session, 0))}, None

    def job_sustain(self, job: Job) -> Answer:
        """One model without a pause: see `sustain.run`."""
        model = self._model(job)
        variables = model.feed(job.tensors)
        answer = sustain.run(lambda: model.timed(variables), job.header, job.emit)
        return dict(answer, memory=self._memory.read(anew=True)), None

    def job_operators(self, job: Job) -> Answer:
        """Time of each operator, in a pass of its own: see `operators`.  Only for models without subgraphs."""
        model = self._model(job)
        one = operators.Pass(model.path, model.config, model.options, model.arrays(job.tensors))
        return operators.measure(one, int(job.header["runs"]), float(job.header["seconds"])), None
