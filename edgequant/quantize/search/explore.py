"""Looks for the smallest model within a noise budget, by running mixtures; the converter has no part in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from edgequant.compare.decibel import power_db
from edgequant.quantize.encode import Form
from edgequant.quantize.search.assign import assign
from edgequant.quantize.search.mixture import Choice, Key, Mixture
from edgequant.spec import MemoryMode

_SLACKS = (0.3, 0.45, 0.6, 0.75, 0.9, 1.0, 1.15, 1.3, 1.6, 2.0, 3.0, 5.0)
"""Budgets handed to the model of adding noise, in shares of the real one: it errs either way, what is run does not."""
_NEAR = 4
"""Forms that refining tries for each layer."""
_COARSE = 5
"""Bits of the second measurement of each layer; the first is 8."""


class Setting(NamedTuple):
    """What is the same for all layers of a model.

    memory: MNN's memory mode.  hqq: how scales are chosen.  halved: what is not quantized is in half precision.
    """

    memory: MemoryMode
    hqq: bool
    halved: bool


@dataclass(frozen=True)
class Tried:
    """A mixture that was run: about how large it would be, and its noise for each constraint.

    uniform: the form all its layers were to have; None where they were chosen one by one.
    """

    setting: Setting
    choice: Choice
    size: int
    noise: np.ndarray
    uniform: Form | None = None

    def margin_db(self, budget: np.ndarray) -> float:
        """By how many dB the worst constraint is kept; negative where it is not."""
        return min(map(power_db, budget.tolist(), self.noise.tolist()))


Measure = Callable[[Setting, Sequence[Choice]], list[np.ndarray]]
"""Runs mixtures; the noise of each for every constraint [constraints]."""


@dataclass
class Explorer:
    """Searches one model.

    Attributes:
        budget: noise allowed for each constraint.
        bits: that quantized layers may have; blocks: that they may have besides one scale per channel.
        tried: every mixture that was run.
        deviations: of the models tried after the sensitivities were known: measured minus predicted noise, dB, worst
            constraint.
    """

    mixture: Mixture
    measure: Measure
    budget: np.ndarray
    bits: Sequence[int] = (8, 7, 6, 5, 4)
    blocks: Sequence[int] = (32, 64)
    tried: list[Tried] = field(default_factory=list)
    deviations: list[float] = field(default_factory=list)

    def searched(self, setting: Setting) -> int:
        """How many models `search` runs, at most, and `plain` before it where constants are halved."""
        return (3 if setting.halved else 0) + 1 + 2 * len(self.mixture.layers) + len(_SLACKS)

    def refined(self, rounds: int) -> int:
        """How many models `refine` runs, at most."""
        return rounds * (_NEAR * len(self.mixture.layers) + len(_SLACKS))

    def forms(self, key: Key, setting: Setting) -> list[Form | None]:
        """What a layer may become; None is float."""
        wanted = [Form(bits, None, False, setting.hqq) for bits in self.bits]
        wanted += [
            Form(bits, block, False, setting.hqq) for bits in self.bits if bits % 2 == 0 for block in self.blocks
        ]
        floor: list[Form | None] = [Form(16) if setting.halved else None]
        return floor + list(self.mixture.forms(key, wanted))

    def run(
        self, setting: Setting, choices: Sequence[Choice], uniform: Sequence[Form | None] | None = None
    ) -> list[Tried]:
        """Run mixtures; appends the results to `tried`."""
        self.mixture.add((key, form) for choice in choices for key, form in choice.items())
        noises = self.measure(setting, choices)
        found = [
            Tried(setting, choice, self.mixture.size(choice, halved=setting.halved), noise, form)
            for choice, noise, form in zip(choices, noises, uniform or [None] * len(choices), strict=True)
        ]
        self.tried += found
        return found

    def plain(self, setting: Setting) -> list[Tried]:
        """The same form for all layers: what plain variants are, and the floor."""
        wanted = [Form(8, None, False, setting.hqq), Form(8, 32, False, setting.hqq)]
        wanted += [Form(16)] if setting.halved else []
        choices: list[Choice] = [
            {key: self.mixture.forms(key, [form])[0] for key in self.mixture.layers} for form in wanted
        ]
        return self.run(setting, choices, wanted)

    def sensitivities(self, setting: Setting) -> tuple[np.ndarray, dict[Key, np.ndarray]]:
        """(noise of the floor, noise of each form of each layer alone [forms, constraints] in `forms`' order).

        Each layer is measured alone at 8 and at a few bits.  The part of its noise that grows as the error of its
        weights does is theirs; the rest is that of its activations, and the same in every form.
        """
        keys = list(self.mixture.layers)
        floor: Choice = dict.fromkeys(keys, Form(16)) if setting.halved else {}
        fine, coarse = Form(8, None, False, setting.hqq), Form(_COARSE, None, False, setting.hqq)
        alone: list[Choice] = [{**floor, key: form} for key in keys for form in (fine, coarse)]
        measured = self.run(setting, [floor, *alone])
        base = measured[0].noise
        found = {}
        for place, key in enumerate(keys):
            forms = self.forms(key, setting)
            self.mixture.add((key, form) for form in forms if form is not None)
            first, second = (np.maximum(each.noise - base, 0) for each in measured[1 + 2 * place : 3 + 2 * place])
            low, high = self.mixture.error(key, fine), self.mixture.error(key, coarse)
            slope = np.maximum(second - first, 0) / max(high - low, 1e-300)
            rest = np.maximum(first - slope * low, 0)
            rows = [
                np.zeros(len(base)) if form is None or form.bits == 16 else rest + slope * self.mixture.error(key, form)
                for form in forms
            ]
            found[key] = np.asarray(rows)
        return base, found

    def search(self, setting: Setting) -> Tried | None:
        """Choose by sensitivities, and run what was chosen; the smallest that keeps the budget."""
        base, table = self.sensitivities(setting)
        keys = list(self.mixture.layers)
        forms = {key: self.forms(key, setting) for key in keys}
        self._attempt(setting, keys, forms, table, base)
        return self.smallest(setting)

    def refine(self, setting: Setting, rounds: int) -> Tried | None:
        """Measure what each layer's neighbouring forms change where the search stands, and choose anew."""
        keys = list(self.mixture.layers)
        for _ in range(rounds):
            best = self.smallest(setting)
            if best is None:
                return None
            forms = {key: self._near(key, setting, best.choice.get(key)) for key in keys}
            changes = [(key, form) for key in keys for form in forms[key][1:]]
            measured = self.run(setting, [_with(best.choice, key, form) for key, form in changes])
            table: dict[Key, np.ndarray] = {}
            for key in keys:
                rows = [np.zeros(len(self.budget))]
                rows += [
                    each.noise - best.noise for each, (owner, _) in zip(measured, changes, strict=True) if owner == key
                ]
                table[key] = np.asarray(rows)
            self._attempt(setting, keys, forms, table, best.noise)
            now = self.smallest(setting)
            if now is None or now.size >= best.size * 0.998:
                break
        return self.smallest(setting)

    def smallest(self, setting: Setting | None = None) -> Tried | None:
        """Of what was run, the smallest that keeps the budget and has a quantized or halved layer."""
        good = [
            each
            for each in self.tried
            if (setting is None or each.setting == setting) and each.choice and (each.noise <= self.budget).all()
        ]
        return min(good, key=lambda each: each.size, default=None)

    def _attempt(
        self,
        setting: Setting,
        keys: Sequence[Key],
        forms: dict[Key, list[Form | None]],
        table: dict[Key, np.ndarray],
        base: np.ndarray,
    ) -> None:
        sizes = [np.asarray([float(self.mixture.payload(key, form)) for form in forms[key]]) for key in keys]
        seen: set[tuple[int, ...]] = set()
        choices: list[Choice] = []
        predicted: list[np.ndarray] = []
        for slack in _SLACKS:
            places = assign(sizes, [table[key] for key in keys], self.budget * slack - base)
            if places is None or tuple(places) in seen:
                continue
            seen.add(tuple(places))
            chosen = {key: forms[key][place] for key, place in zip(keys, places, strict=True)}
            choices.append({key: form for key, form in chosen.items() if form is not None})
            predicted.append(base + sum(table[key][place] for key, place in zip(keys, places, strict=True)))
        for tried, expected in zip(self.run(setting, choices), predicted, strict=True):
            worst = int(np.argmax(tried.noise / self.budget))
            if np.isfinite(tried.noise[worst]) and expected[worst] > 0 < tried.noise[worst]:
                self.deviations.append(power_db(tried.noise[worst], expected[worst]))

    def _near(self, key: Key, setting: Setting, now: Form | None) -> list[Form | None]:
        """The form a layer has, then the next two smaller and larger ones."""
        forms = self.forms(key, setting)
        self.mixture.add((key, form) for form in forms if form is not None)
        forms.sort(key=lambda form: (self.mixture.payload(key, form), str(form)))
        own = self.mixture.payload(key, now)
        smaller = [form for form in forms if self.mixture.payload(key, form) < own][-_NEAR // 2 :]
        larger = [form for form in forms if self.mixture.payload(key, form) > own][: _NEAR // 2]
        return [now, *smaller, *larger]


def _with(choice: Choice, key: Key, form: Form | None) -> Choice:
    changed = dict(choice)
    if form is None:
        changed.pop(key, None)
    else:
        changed[key] = form
    return changed
