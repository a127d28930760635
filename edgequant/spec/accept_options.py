"""How the trials of an acceptance are run: options of all, of the variant, of the device and of the model, merged."""

from __future__ import annotations

from typing import TypeVar

from edgequant.spec.accept import AcceptSpec, TrialKey
from edgequant.spec.options import Access, RunOptions

_Section = TypeVar("_Section", RunOptions, Access)


def options_of(spec: AcceptSpec, key: TrialKey) -> tuple[RunOptions, Access]:
    """Of one trial: all < variant < device < model, key by key; access: all < device.

    Raises ValueError where what comes together contradicts itself, such as python with runtime: pack.
    """
    device = spec.devices[key.device]
    parts = (spec.options, spec.variant(key).options, device.options, spec.models[key.model].options)
    return _merged(*parts), _merged(spec.device_options, device.device_options)


def _merged(*sections: _Section) -> _Section:
    found = sections[0].model_dump(exclude_unset=True)
    for section in sections[1:]:
        found.update(section.model_dump(exclude_unset=True))
    return type(sections[0])(**found)
