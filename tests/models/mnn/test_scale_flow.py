"""Where int8 would flow, on graphs drawn by hand."""

from __future__ import annotations

from edgequant.models.mnn.scale_flow import Flow
from edgequant.models.model import OpInfo


def op(type: str, inputs: str, outputs: str, subgraph: str | None = None) -> OpInfo:
    return OpInfo(outputs.split()[0], type, subgraph, tuple(inputs.split()), tuple(outputs.split()))


BEFORE_AND_AFTER = (
    op("Convolution", "x", "a"),
    op("Convolution", "a", "b"),
    op("Reshape", "b shape", "c"),
    op("UnaryOp", "b", "d"),
    op("While", "c", "loop"),
    op("BinaryOp", "inner", "hidden", subgraph="body"),
    op("BinaryOp", "loop a", "sum"),
    op("BinaryOp", "sum d", "y"),
)


def test_only_what_is_used_behind_a_loop_crosses() -> None:
    flow = Flow(BEFORE_AND_AFTER)
    assert flow.crossing("a") == "sum"
    assert flow.crossing("b") is None  # the loop takes it as float, and d is float
    assert flow.crossing("x") is None
    shown = (*BEFORE_AND_AFTER, op("ConvertTensor", "b", "out"))
    assert Flow(shown).crossing("b") is None
    assert Flow((*shown, op("UnaryOp", "out", "z"))).crossing("b") == "z"
    moved = Flow((*BEFORE_AND_AFTER, op("BinaryOp", "c y", "z")))
    assert moved.crossing("b") == "z"  # what is only moved stays int8


def test_a_pool_inherits_unless_it_has_a_scale_of_its_own() -> None:
    flow = Flow(
        (
            op("Convolution", "x", "a"),
            op("UnaryOp", "a", "h"),
            op("Pooling3D", "h", "p"),
            op("Reshape", "p shape", "r"),
            op("Convolution", "r", "y"),
            op("Concat", "r a", "both"),
        )
    )
    assert flow.squeezed("r", {"x", "a", "r", "y"}) == ["h"]
    assert flow.squeezed("r", {"h", "r"}) == []
    assert flow.squeezed("p", {"p"}) == ["h"]
    assert flow.squeezed("a", {"a"}) == []
    assert flow.may_squeeze("both") == ["h"]
    assert flow.squeezed("both", {"r"}) == []


def test_where_scales_spread_to() -> None:
    flow = Flow(
        (
            op("Convolution", "x", "a"),
            op("Reshape", "a shape", "r"),
            op("Concat", "r h", "both"),
            op("UnaryOp", "both", "u"),
            op("Slice", "s shape", "t"),
        )
    )
    assert flow.spread({"a"}) == {"a", "r", "both", "h"}
    assert flow.spread({"both"}) == {"a", "r", "both", "h"}
    assert flow.spread({"u"}) == {"u"}
    assert flow.spread({"shape"}) == {"shape"}  # a size is no value, whoever else uses it


def test_which_scales_are_nearest() -> None:
    flow = Flow(
        (
            op("Convolution", "x", "a"),
            op("ReLU", "a", "r"),
            op("Pooling", "r", "p"),
            op("Convolution", "p", "y"),
        )
    )
    assert flow.nearest("r", {"x", "a", "y"}) == {"a"}
    assert flow.nearest("r", {"a", "p"}) == {"a", "p"}
    assert flow.nearest("a", {"a", "p"}) == {"a"}
    assert flow.nearest("r", {"x", "y"}) == set()


def test_sums_whose_end_is_never_written() -> None:
    ops = (
        op("Convolution", "x", "a"),
        op("ConvertTensor", "a", "b"),
        op("Convolution", "z", "c"),
        op("ConvertTensor", "c", "d"),
        op("BinaryOp", "b d", "s"),
        op("ConvertTensor", "s", "t"),
        op("Convolution", "t", "y"),
    )
    flow = Flow(ops)
    assert flow.tails({"a", "c", "t"}, ()) == [("s", ("b", "d"))]
    assert flow.tails({"a", "c", "t"}, {"c"}) == []  # s is as large as d, or a multiple of it
    assert flow.tails({"a", "t"}, ()) == []  # d is float
    assert flow.tails({"a", "c"}, ()) == []  # s itself is
    assert Flow((*ops[:4], op("BinaryOp", "a c", "s"), *ops[5:])).tails({"a", "c", "t"}, ()) == []  # packed


def test_what_goes_round_in_circles_ends() -> None:
    flow = Flow((op("Reshape", "b", "a"), op("Reshape", "a", "b")))
    assert flow.crossing("a") is None
    assert flow.squeezed("a", ()) == []
    assert flow.spread({"a"}) == {"a", "b"}
