"""A folder of pictures as cases or calibration data: which files count, and what the user should know of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgequant.cases.case import Case, fit
from edgequant.cases.folder import listed, there
from edgequant.cases.images import ImageReader, turned
from edgequant.errors import InputError
from edgequant.findings import Finding
from edgequant.spec.images import ImageOptions
from edgequant.tensors import TensorSpec

SUFFIXES = (".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm")
OTHERS = (
    ".heic", ".heif", ".avif", ".jxl", ".jp2", ".j2k", ".svg", ".psd", ".tga", ".ico", ".exr", ".hdr", ".dng", ".raw",
    ".cr2", ".cr3", ".nef", ".arw", ".pbm", ".pnm",
)  # fmt: skip
"""Pictures all the same, but of kinds that are not read."""
_NOTES = (".txt", ".md", ".json")


@dataclass(frozen=True)
class PictureFile:
    """A case that is still a picture on disk."""

    path: Path
    options: ImageOptions

    @property
    def name(self) -> str:
        return self.path.stem

    def load(self, inputs: Sequence[TensorSpec]) -> Case:
        """Read it, checked against the model's `inputs`.  Raises InputError: see `ImageReader`, `fit`."""
        reader = ImageReader(inputs, self.options)
        try:
            return fit(self.name, {reader.spec.name: reader.read(self.path)}, inputs, str(self.path))
        except InputError as error:
            if error.code == "INPUT_SHAPE":
                error.hint = "Say what pictures become with --image: format=GRAY has 1 channel, RGB 3, RGBA 4; layout=."
            raise


@dataclass(frozen=True)
class Pictures:
    """The pictures at a path.

    Attributes:
        files: in name order.
        left_out: files of other kinds beside them, in name order; hidden files and notes (.txt, .md, .json, README) do
            not count.
    """

    files: tuple[Path, ...]
    left_out: tuple[Path, ...] = ()


def find_pictures(path: Path) -> Pictures | None:
    """The pictures at `path`; None where it is something else.  None of them is read.

    Raises InputError: INPUTS_FORMAT (other cases beside them; none of a kind that is read; not a file),
    INPUTS_NOT_FOUND, INPUTS_TOO_MANY.
    """
    if not path.is_dir():
        if _kind(path) == "picture" and path.exists():
            if not path.is_file():
                raise InputError("INPUTS_FORMAT", f"{path}: not a file")
            return Pictures((path,))
        if _kind(path) == "other" and path.is_file():
            raise _not_read(path, [path])
        return None
    entries = listed(path)
    sorts = {entry: _kind(entry) for entry in entries}
    pictures = [entry for entry, sort in sorts.items() if sort == "picture"]
    others = [entry for entry, sort in sorts.items() if sort == "other"]
    cases = [entry for entry, sort in sorts.items() if sort == "case"]
    if not pictures:
        if others and not cases and not any(entry.is_dir() for entry in entries):
            raise _not_read(path, others)
        return None
    folders = [] if cases else [entry for entry in entries if sorts[entry] != "picture" and entry.is_dir()]
    if cases or folders:
        raise InputError(
            "INPUTS_FORMAT",
            f"{path}: pictures beside {(*cases, *folders)[0].name}; only one kind of data can be used",
            hint="Put them into folders of their own; of a folder of pictures no folder below it is read.",
        )
    bad = next((entry for entry in pictures if not entry.is_file()), None)
    if bad is not None:
        raise InputError(
            "INPUTS_FORMAT", f"{bad}: {'not a file' if bad.exists() else 'a link to nothing'}", hint="Remove it."
        )
    left = [entry for entry, sort in sorts.items() if sort != "picture" and not _note(entry)]
    return Pictures(tuple(pictures), tuple(left))


def refuse_unused(options: ImageOptions | None, *sources: Path | str | None) -> None:
    """Raise InputError (OPTION_UNUSED) where there are options for pictures, and none of the sources are pictures."""
    if options is None or any(_is_pictures(Path(source)) for source in sources if source is not None):
        return
    raise InputError(
        "OPTION_UNUSED",
        "--image says what becomes of pictures, and there are none",
        hint="Give a folder of pictures with --inputs or --calibration, or leave it out.",
    )


def _is_pictures(path: Path) -> bool:
    try:
        there(path)
        if find_pictures(path) is not None:
            return True
        folders = [entry for entry in listed(path) if entry.is_dir()] if path.is_dir() else []
        return any(_kind(entry) == "picture" for folder in folders[:100] for entry in listed(folder))
    except InputError:
        return True  # what is wrong there is told where it is read


def _kind(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix == ".npz" or path.name == "input.json":
        return "case"
    return "picture" if suffix in SUFFIXES else "other" if suffix in OTHERS else ""


def _note(path: Path) -> bool:
    return path.suffix.lower() in _NOTES or path.stem.upper() == "README"


def _not_read(path: Path, files: Sequence[Path]) -> InputError:
    return InputError(
        "INPUTS_FORMAT",
        f"{path}: pictures of a kind that is not read: {kinds(files)}",
        hint=f"Convert them; read are {', '.join(SUFFIXES)}.",
    )


def kinds(files: Sequence[Path]) -> str:
    """``12 .heic, 1 .csv``"""
    counts = Counter(file.suffix.lower() or file.name for file in files)
    shown = [f"{count} {kind}" for kind, count in counts.most_common(8)]
    return ", ".join([*shown, *(["..."] if len(counts) > 8 else [])])


def picture_findings(
    used: Sequence[Path], reader: ImageReader, *, prefix: str, left_out: Sequence[Path] = ()
) -> list[Finding]:
    """What was done to the pictures, and what the user may not know of them.

    Args:
        prefix: of the codes: CALIBRATION or INPUT.
    """
    options = reader.options
    # Numbers of pixels from 0 to 1, which is what PyTorch's are: with pixels to 255 they take hardly anything away.
    suspect = any(options.mean) and max(map(abs, options.mean)) <= 1
    what = "picture becomes" if len(used) == 1 else "pictures become"
    found = [
        Finding(
            code=f"{prefix}_IMAGES",
            severity="warn" if suspect else "info",
            where=reader.spec.name,
            message=f"{len(used)} {what} input '{reader.spec.name}': {reader.words()}"
            + ("; a mean of at most 1 looks like one of pixels from 0 to 1, but they go to 255" if suspect else ""),
            evidence={**options.model_dump(mode="json"), "size": list(reader.size), "layout": reader.layout},
            remedy="A mean m and deviation s of pixels from 0 to 1 are written mean=255m normal=1/(255s)."
            if suspect
            else "The model must have been trained so; otherwise say how with --image (mean, normal, format, ...).",
        )
    ]
    if left_out:
        unread = any(_kind(file) == "other" for file in left_out)
        found.append(
            Finding(
                code=f"{prefix}_LEFT_OUT",
                severity="warn" if unread else "info",
                message=f"{len(left_out)} files beside the pictures are not used: {kinds(left_out)}",
                evidence={"files": [file.name for file in left_out[:100]]},
                remedy=f"Read are {', '.join(SUFFIXES)}. Convert the others where they are meant to count.",
            )
        )
    aside = [file.name for file in used if turned(file)]
    if aside:
        found.append(
            Finding(
                code=f"{prefix}_ORIENTATION",
                severity="warn",
                where=aside[0],
                message=f"{len(aside)} pictures were taken with the camera turned, and are used as they are stored, "
                f"not as they are shown (such as {aside[0]})",
                evidence={"files": aside[:100]},
                remedy="Where your application turns them, save turned ones.",
            )
        )
    return found
