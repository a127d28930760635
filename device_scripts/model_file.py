"""What an MNN file says of its tensors.  MNN does not tell, and some versions die of a tensor that is not there."""

from __future__ import annotations

import mmap
import struct
from typing import Any, Callable, Iterator, Set, TypeVar

Found = TypeVar("Found")

# Field numbers of MNN's schema: of Net, and of Op.
_OPS, _SOURCE, _TENSORS, _OP_OUTPUTS = 3, 6, 7, 4
_CHANNELS_LAST = (1, 2)  # TensorFlow, TFLite


def tensor_names(path: str) -> Set[str]:
    """The names of what operators of the main graph make, inputs and constants included.

    Raises OSError, ValueError for a file that is no MNN model.
    """
    return _looked(path, _names)


def channels_last(path: str) -> bool:
    """Whether it was made from a format whose tensors are NHWC.  Raises as `tensor_names`."""
    return _looked(path, _source) in _CHANNELS_LAST


def _looked(path: str, look: Callable[[Any], Found]) -> Found:
    with open(path, "rb") as stream:
        try:
            with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return look(data)
        except (struct.error, IndexError, UnicodeDecodeError) as error:
            raise ValueError("it is damaged, or no MNN model (%s)" % error) from None


def _source(data: Any) -> int:
    net = _u32(data, 0)
    place = _place(data, net, _SOURCE)
    return int(data[net + place]) if place else 0


def _names(data: Any) -> Set[str]:
    net = _u32(data, 0)
    texts = [_text(data, _follow(data, at)) for at in _elements(data, net, _TENSORS)]
    found = set()
    for at in _elements(data, net, _OPS):
        for index in _elements(data, _follow(data, at), _OP_OUTPUTS):
            found.add(texts[_u32(data, index)])
    return found


def _u32(data: Any, at: int) -> int:
    return int(struct.unpack_from("<I", data, at)[0])


def _follow(data: Any, at: int) -> int:
    return at + _u32(data, at)


def _elements(data: Any, table: int, field: int) -> Iterator[int]:
    """Where the elements of a vector of four-byte values or offsets are; none where the table leaves it out."""
    offset = _place(data, table, field)
    if offset:
        vector = _follow(data, table + offset)
        count = _u32(data, vector)
        if vector + 4 + 4 * count > len(data):
            raise IndexError("a list of %d is longer than the file" % count)
        for number in range(count):
            yield vector + 4 + 4 * number


def _place(data: Any, table: int, field: int) -> int:
    """Where in a table a field is; 0 where the table leaves it out."""
    vtable = table - int(struct.unpack_from("<i", data, table)[0])
    entry = 4 + 2 * field
    if entry + 2 > int(struct.unpack_from("<H", data, vtable)[0]):
        return 0
    return int(struct.unpack_from("<H", data, vtable + entry)[0])


def _text(data: Any, at: int) -> str:
    return bytes(data[at + 4 : at + 4 + _u32(data, at)]).decode("utf-8")
