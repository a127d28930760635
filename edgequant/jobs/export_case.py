"""The smallest reproduction of a wrong conversion, as a folder that shows it with MNN and NumPy alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from edgequant.errors import InputError
from edgequant.jobs.case_folder import write_case
from edgequant.jobs.departure import Departure
from edgequant.mnn_version import host_mnn_version
from edgequant.models.onnx_cut import words

# Not the command mnnconvert: it sends what it is used for to a server, and installs packages.
_CONVERT = (
    "python -c \"import _tools; _tools.mnnconvert(['', '-f', '{kind}', '--modelFile', '{part}', "
    "'--MNNModel', 'part.mnn', '--bizCode', 'MNN'])\""
)
_KINDS = {".onnx": "ONNX", ".tflite": "TFLITE"}


def export_case(departure: Departure, out: Path) -> Path:
    """Write the reproduction of a departure that is proven: `part.onnx` or `part.tflite`, `part.mnn`, `inputs.npz`,
    `expected.npz`, `show_case.py` and `README.md`.  The folder is there whole, or not at all.

    Returns the script, which needs MNN and NumPy, prints how far each output is off, and exits 1 where one is.

    Raises InputError OUTPUT_NOT_WRITABLE where `out` is there and not empty, or nothing is proven; EdgequantError where
    the disk takes no more.
    """
    case = departure.reproduction
    if case is None:
        raise InputError(
            "OUTPUT_NOT_WRITABLE",
            f"there is no case to write: {departure.node} was not cut out and seen to depart on its own",
            hint="Its proof says why not.",
            where=str(out),
        )
    part = f"part{case.source.suffix}"
    texts = {"README.md": _readme(departure, part)}
    if case.source.suffix == ".tflite":
        texts["case.json"] = json.dumps({"channels_last": True}) + "\n"
    return write_case(
        out,
        {part: case.source, "part.mnn": case.mnn},
        {"inputs.npz": case.inputs, "expected.npz": case.expected},
        texts,
    )


def _readme(departure: Departure, part: str) -> str:
    def sizes(arrays: Mapping[str, tuple[int, ...]]) -> str:
        return ", ".join(f"{name} [{','.join(map(str, shape))}]" for name, shape in arrays.items())

    given = ", ".join(f"{key}={words(value)}" for key, value in departure.attributes.items())
    why = f"  {departure.why}." if departure.why else ""
    what = "computes something else" if departure.reproduction and departure.reproduction.got else "cannot run it"
    lines = (
        f"# {departure.operator}{f' ({given})' if given else ''}: MNN {host_mnn_version()} {what}",
        f"`{part}` holds {_parts(departure)}; `part.mnn` is what MNN's converter makes of it.{why}",
        f"`inputs.npz`: {sizes(departure.smallest)}.  `expected.npz`: what {departure.reference} computes of them.",
        "`python show_case.py` (MNN and NumPy) prints the difference and exits with 1; with 0 where it is mended.",
        f"To convert again, here: `{_CONVERT.format(kind=_KINDS[Path(part).suffix], part=part)}`.",
    )
    return "".join(f"{line}\n" for line in lines)


def _parts(departure: Departure) -> str:
    nodes = departure.stretch or (departure.node,)
    before = f", and what is before it: {', '.join(departure.context)}" if departure.context else ""
    return f"{', '.join(nodes)} of the model{before}"
