"""Comparisons of an .mnn that MNN gets wrong on x86."""

from __future__ import annotations

from pathlib import Path

from edgequant.models.mnn.net import op_type, open_net, operators
from edgequant.models.mnn.schema import BinaryOp, BinaryOpOperation, Op


def read_less(path: Path) -> tuple[str, ...]:
    """Operators of all graphs of `path`, a file that `read_model` has accepted, that ask whether a < b.

    Of floats, MNN on x86 (source/math/Vec.hpp, 2.8 to 3.6.1 at least) compares the bits as if they were whole numbers
    (_mm_cmplt_epi32), so that of two negative numbers the larger one is the smaller.  Its other comparisons are right,
    and so is this one on ARM.  Whether they are floats the file does not tell.

    Raises BrokenFileError: the file is damaged.
    """
    with open_net(path) as net:
        found = [(op.string(Op.name) or "", op.table(Op.main)) for op in operators(net) if op_type(op) == "BinaryOp"]
        return tuple(
            name
            for name, binary in found
            if binary is not None and binary.number(BinaryOp.op_type) == BinaryOpOperation.LESS
        )
