"""Devices that compute something else than this host with the same file: the table of what they do to outputs.

It needs NumPy alone, for it also runs inside the runner.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .mechanisms import (
    Arrays,
    At,
    Effect,
    after,
    after_resize,
    change,
    clip,
    exchange,
    few,
    from_input,
    gain,
    in_int8,
    last_bits,
    leaked,
    levels,
    logit_gain,
    noise,
    offset,
    only,
    shift,
    stale,
    swapped,
    tail,
    together,
    transposed,
    whole,
)


class Fault(NamedTuple):
    """name: of the defect.  kind.  home: the recording it is planted into, and the variant.  what: it does."""

    name: str
    kind: str
    home: str
    variant: str
    what: str
    effect: Effect


CLS = "save_infer_model/scale_0.tmp_1"
REC = "fetch_name_0"
RARE = 11


def _one_size(name: str, axis: int, size: int, factor: float) -> Effect:
    """Wrong in the inferences of one length."""
    return only(lambda o, at: o[name].shape[axis] == size, gain(name, factor))


def _smeared(name: str, axis: int) -> Effect:
    return whole(name, lambda a: (0.97 * a + 0.03 * np.roll(a, 1, axis)).astype(a.dtype))


def _by_one(part: np.ndarray) -> np.ndarray:
    return (part + np.ptp(part) / 255).astype(part.dtype)


def _compressed(part: np.ndarray) -> np.ndarray:
    return (part - 0.06 * part**3 / np.abs(part).max() ** 2).astype(part.dtype)


def _rows(name: str, how: str) -> Effect:
    """Of a batch: every row is the first, or the last one is nothing."""

    def effect(outputs: Arrays, at: At) -> Arrays:
        array = outputs[name].copy()
        if len(array) > 1 and how == "first":
            array[1:] = array[:1]
        elif len(array) > 1:
            array[-1] = 0
        return dict(outputs, **{name: array})

    return effect


def _instead(name: str, lost: int, taken: int) -> Effect:
    """Wherever one class wins, another gets its scores."""

    def effect(outputs: Arrays, at: At) -> Arrays:
        scores = outputs[name].copy()
        steps = scores.argmax(axis=1) == lost
        first, second = scores[:, lost][steps].copy(), scores[:, taken][steps].copy()
        scores[:, taken][steps], scores[:, lost][steps] = first, second
        found = dict(outputs, **{name: scores})
        if "label" in outputs:
            found["label"] = np.where(steps, taken, outputs["label"]).astype(outputs["label"].dtype)
        return found

    return effect


def _runner_up(name: str, every: int) -> Effect:
    """At some places the second best of a row of scores comes first."""

    def effect(outputs: Arrays, at: At) -> Arrays:
        array = outputs[name].copy()
        rows = array.reshape(-1, array.shape[-1])
        for row in rows[every // 2 :: every]:
            best = np.argsort(row)[-2:]
            row[best] = row[best[::-1]]
        return dict(outputs, **{name: array})

    return effect


def _one_step(name: str, axis: int, place: float, factor: float) -> Effect:
    """One step wrong, at a share of the length."""

    def effect(outputs: Arrays, at: At) -> Arrays:
        step = int(place * (outputs[name].shape[axis] - 1))
        return gain(name, factor, axis, step)(outputs, at)

    return effect


def _repeated_step(name: str, axis: int) -> Effect:
    """The step in the middle is what it was before."""

    def effect(outputs: Arrays, at: At) -> Arrays:
        array = outputs[name]
        steps = np.arange(array.shape[axis])
        steps[len(steps) // 2] -= 1
        return dict(outputs, **{name: np.take(array, steps, axis=axis)})

    return effect


def _drift(name: str, axis: int, end: float) -> Effect:
    """An error that grows with every step, as in a loop that feeds back into itself."""

    def effect(outputs: Arrays, at: At) -> Arrays:
        array = outputs[name]
        shape = [1] * array.ndim
        shape[axis] = array.shape[axis]
        ramp = 1 + end * np.linspace(0, 1, array.shape[axis]).reshape(shape)
        return dict(outputs, **{name: (array * ramp).astype(array.dtype)})

    return effect


def _by_size(outputs: Arrays, at: At) -> Arrays:
    """Outputs are kept under the sizes of the inputs, which is no key."""
    same = [one for one in at.earlier if all(one[name].shape == array.shape for name, array in outputs.items())]
    return same[0] if same else outputs


def _mixed(outputs: Arrays, at: At) -> Arrays:
    """The second half of an inference is of the one of its size before it."""
    other = _by_size(outputs, at)
    return {
        name: np.concatenate(np.array_split(array, 2, -1)[:1] + np.array_split(other[name], 2, -1)[1:], -1)
        for name, array in outputs.items()
    }


def _crosstalk(name: str, axis: int, into: int, source: int, share: float) -> Effect:
    def how(array: np.ndarray) -> np.ndarray:
        moved = np.moveaxis(array.copy(), axis, 0)
        moved[into] += share * moved[source]
        return np.moveaxis(moved, 0, axis)

    return whole(name, how)


def _as_half(array: np.ndarray) -> np.ndarray:
    """What leaves the range of half precision is infinite, and the activation behind it makes the largest of it."""
    scaled = array.astype(np.float64) * (70000 / np.abs(array).max())
    return np.where(np.abs(scaled) > 65504, 0, array).astype(array.dtype)


ENC, A_DYN, A_W = "enc", "dynamic:8", "weight:8"
Z = np.zeros_like
F: list[Fault] = []


def _add(kind: str, home: str, variant: str, **faults: tuple[str, Effect]) -> None:
    F.extend(Fault(name, kind, home, variant, what, effect) for name, (what, effect) in faults.items())


_add(
    "size", ENC, A_DYN,
    gain_5_last_layer=("the last layer is 5 % too loud", gain("emb", 1.05)),
    gain_3_one_channel_of_64=("one channel of 64 is 3 % too loud", gain("e2", 1.03, 1, 17)),
    zero_channel_of_64=("one channel of 64 is zero", change("e1", Z, 1, 20)),
    bias_dropped_before_relu=("a bias is missing before a ReLU", offset("c0", 0.08, 1, floor=0.0)),
    saturated_early=("what is loud is cut off", clip("e0", 0.6)),
    levels_64=("six bits in place of eight", levels("emb", 64)),
    rounded_down=("rounded down in place of to the nearest", levels("e3", 200, down=True)),
    stuck_neuron=("one neuron is what it is at the first step",
                  change("emb", lambda p: p * 0 + p.flat[0], 2, 77)),
    padding_wrong=("both edges of the frequency axis are 10 % off",
                   together(gain("e0", 0.9, 3, 0), gain("e0", 1.1, 3, 31))),
    noise_26_db=("white noise far above rounding", noise("e0", 26.0)),
)  # fmt: skip
_add(
    "size", "erb_dec", A_DYN,
    gain_3_before_sigmoid=("the layer before the sigmoid is 3 % too loud", logit_gain("m", 1.03)),
    nan_swallowed_to_1=("a NaN inside leaves the sigmoid as 1", few("m", 0.002, np.ones_like)),
    sigmoid_of_pieces=("a sigmoid made of straight pieces",
                       change("m", lambda p: (p + 0.012 * np.sin(4 * np.pi * p)).astype(p.dtype))),
    mask_floor=("small values are zero", change("m", lambda p: np.where(p < 0.05 * p.max(), 0, p).astype(p.dtype))),
)  # fmt: skip
_add(
    "size", "df_dec", A_DYN,
    gain_5_one_tap=("one coefficient of ten is 5 % too loud", gain("coefs", 1.05, 3, 6)),
    sign_flip_tap=("one coefficient of one band has the wrong sign",
                   change("coefs", lambda p: np.concatenate([p[..., :3], -p[..., 3:4], p[..., 4:]], -1), 2, 90)),
    compressed_loud=("loud values are compressed", change("coefs", _compressed)),
)  # fmt: skip
_add(
    "size", "panel", A_DYN,
    gain_3_panel_channel=("one channel of 64 is 3 % too loud", gain("y", 1.03, 1, 40)),
    sign_flip_channel=("one channel of 64 has the wrong sign", gain("y", -1.0, 1, 9)),
    bias_dropped=("a bias is missing", offset("y", 0.05, 1)),
    block_scale_wrong=("half of the channels are 2 % too loud", gain("y", 1.02, 1, slice(0, 32))),
    channel_copied=("one channel is its neighbour",
                    whole("y", lambda a: np.take(a, [c - (c == 21) for c in range(64)], axis=1))),
    crosstalk=("one channel hears another", _crosstalk("y", 1, 12, 50, 0.05)),
    skip_twice=("a skip connection is added a little too much", from_input("y", "x", 0.02)),
    relu_too_much=("what is a little below zero is zero",
                   change("y", lambda p: np.where((p < 0) & (p > -0.15), 0, p).astype(p.dtype))),
    small_channel_lost=("scores beside boxes of 640 are halved", gain("box", 0.5, 1, 4)),
    small_channel_noise=("scores beside boxes of 640 are noise",
                         change("box", lambda p: np.random.default_rng(3).random(p.shape).astype(p.dtype), 1, 4)),
    dtype_changed=("labels come back as floats", whole("label", lambda a: a.astype(np.float32))),
    label_off_by_one=("one label in a hundred is off by one", few("label", 0.008, lambda a: a + 1)),
)  # fmt: skip
_add(
    "size", ENC, A_W,
    bfloat16=("computed in bfloat16", last_bits("e2", 16)),
    even_positions_2=("every second position is 2 % too loud", gain("c0", 1.02, 3, slice(0, None, 2))),
    gain_half_percent_float=("float kernels, and half a percent too loud", gain("emb", 1.005)),
    one_element=("one element of all is twice what it should be",
                 change("c0", lambda p: (p * 2).astype(p.dtype), 3, 41)),
    half_overflow=("half precision overflows, and what is left is zero", whole("e3", _as_half)),
)  # fmt: skip
_add(
    "size", "track", A_DYN,
    small_unit_row=("one of five tracks in millionths is 3 % too far", gain("drift", 1.03, 1, 2)),
    small_unit_smeared=("each step of a track is mixed with the one before", _smeared("drift", 2)),
    small_unit_tail=("what is left over of a track is 6 % off", tail("drift", 2, lambda p: (p * 1.06).astype(p.dtype))),
    small_unit_zero_point=("a zero point is off by one, in ten thousandths", change("rate", _by_one)),
    rate_in_half=("three numbers a case are cut off to half precision", last_bits("rate", 13)),
    int8_in_half=("cut off to half precision, in int8 kernels alone", in_int8(last_bits("drift", 13))),
    int8_bfloat16=("cut off to bfloat16, in int8 kernels alone", in_int8(last_bits("drift", 16))),
    int8_one_case=("3 % too far in the cases of one length, in int8 kernels alone",
                   in_int8(_one_size("drift", 2, 57, 1.03))),
)  # fmt: skip
_add(
    "size", "track", "float",
    small_unit_one_case=("3 % too far in the cases of one length", _one_size("drift", 2, 57, 1.03)),
    small_unit_rounded_down=("rounded down to 256 levels in place of to the nearest", levels("drift", 256, down=True)),
    float_in_half=("cut off to half precision", last_bits("drift", 13)),
)  # fmt: skip
_add(
    "size", ENC, A_DYN,
    enc_one_length=("3 % too loud in the cases of one length", _one_size("e2", 2, 32, 1.03)),
    enc_smeared=("each frame is mixed with the one before", _smeared("c0", 2)),
    enc_int8_in_half=("cut off to half precision, in int8 kernels alone", in_int8(last_bits("e1", 13))),
    enc_int8_bfloat16=("cut off to bfloat16, in int8 kernels alone", in_int8(last_bits("e3", 16))),
    enc_zero_point=("a zero point is off by one", change("emb", _by_one)),
)  # fmt: skip
_add(
    "size", "erb_dec", A_DYN,
    mask_smeared=("each frame is mixed with the one before", _smeared("m", 2)),
    mask_int8_in_half=("cut off to half precision, in int8 kernels alone", in_int8(last_bits("m", 13))),
    mask_one_length=("3 % too loud in the cases of one length", _one_size("m", 2, 32, 1.03)),
)  # fmt: skip
_add(
    "size", "df_dec", A_DYN,
    coefs_smeared=("each step is mixed with the one before", _smeared("coefs", 1)),
    coefs_int8_bfloat16=("cut off to bfloat16, in int8 kernels alone", in_int8(last_bits("coefs", 16))),
    coefs_one_length=("3 % too loud in the cases of one length", _one_size("coefs", 1, 32, 1.03)),
    coefs_zero_point=("a zero point is off by one", change("coefs", _by_one)),
)  # fmt: skip
_add(
    "place", ENC, A_DYN,
    late_by_a_frame=("late by a frame", shift("e0", 2, 1)),
    first_step_wrong=("the first step is 10 % off", gain("emb", 0.9, 1, 0)),
    last_step_zero_if_odd=("the last step of an odd number is zero", tail("e2", 2, Z, 2)),
    tail_of_lanes=("what is left over beyond groups of four is 8 % off",
                   tail("emb", 1, lambda p: (p * 1.08).astype(p.dtype))),
    channels_exchanged=("two channels in each other's stead", exchange("e3", 1, 4, 5)),
    outputs_exchanged=("two outputs of one shape in each other's stead", swapped("e2", "e3")),
    one_step_wrong=("one step in the middle is what it was before", _repeated_step("c0", 2)),
)  # fmt: skip
_add(
    "place", "erb_dec", A_DYN,
    early_by_a_frame=("early by a frame", shift("m", 2, -1)),
    mask_transposed=("written by columns, read by rows, where both are 32",
                     only(lambda o, at: o["m"].shape[2] == 32, transposed("m", 2, 3))),
    bands_exchanged=("two bands of 32 in each other's stead", exchange("m", 3, 30, 31)),
)  # fmt: skip
_add(
    "place", "panel", A_DYN,
    features_transposed=("64 channels and 64 steps are taken for each other",
                         only(lambda o, at: o["y"].shape[2] == 64, transposed("y", 1, 2))),
    last_group_of_channels=("the last four channels are 5 % off", gain("y", 1.05, 1, slice(60, None))),
    seam=("the step at a seam is 30 % off", _one_step("y", 2, 0.5, 0.7)),
)  # fmt: skip
_add(
    "place", "gru", A_DYN,
    first_step_of_gru=("the first step starts from another state", _one_step("y", 1, 0.0, 0.95)),
    state_late=("the state that is handed on is 3 % too small", gain("stateN", 0.97)),
    drift=("the error grows with every step", _drift("y", 1, 0.03)),
    gate_units_exchanged=("two units in each other's stead", exchange("y", 2, 10, 11)),
)  # fmt: skip
_add(
    "place", "ppocr_cls", "fp16",
    batch_is_first=("each row of a batch is the first", _rows(CLS, "first")),
    last_of_batch=("the last row of a batch is zero", _rows(CLS, "last")),
)  # fmt: skip
_add(
    "session", "panel", A_DYN,
    stale_output=("what comes back is what the inference before gave", stale(["y", "p", "label", "box"])),
    stale_one_output=("one output of four is that of the inference before", stale(["y"])),
    wrong_after_resize=("4 % too loud after a change of size", after_resize(gain("y", 1.04))),
    wrong_after_3=("5 % too loud from the fourth inference on", after(3, gain("y", 1.05))),
    half_of_another_case=("the second half is of the case of its size before it", _mixed),
    noise_each_time=("other noise each time", noise("y", 30.0, steady=False)),
)  # fmt: skip
_add(
    "session", ENC, A_DYN,
    state_not_reset=("the state of the inference before dies away", leaked("emb", 1, 0.5)),
    stale_lsnr=("one small output is that of the inference before", stale(["lsnr"])),
    resize_c0=("4 % too loud after a change of size", after_resize(gain("c0", 1.04))),
)  # fmt: skip
_add(
    "session", "gru", A_DYN,
    cached_by_size=("outputs are kept by the sizes of the inputs", _by_size),
    wrong_from_third=("3 % off from the third inference on", after(2, gain("y", 0.97))),
)  # fmt: skip
_add(
    "int8 kernels", ENC, A_DYN,
    int8_gain_5=("5 % too loud, in int8 kernels alone", in_int8(gain("emb", 1.05))),
    int8_zero_channel=("one channel of 64 is zero, in int8 kernels alone", in_int8(change("e3", Z, 1, 33))),
    int8_first_step=("the first step is 15 % off, in int8 kernels alone", in_int8(gain("emb", 0.85, 1, 0))),
    int8_channel_3=("one channel of 64 is 3 % off, in int8 kernels alone", in_int8(gain("c0", 0.97, 1, 5))),
    int8_tail=("what is left over is 10 % off, in int8 kernels alone",
               in_int8(tail("lsnr", 1, lambda p: (p * 1.1).astype(p.dtype)))),
    int8_bias=("a bias is missing, in int8 kernels alone", in_int8(offset("emb", 0.06, 2, floor=0.0))),
    int8_saturated=("what is loud is cut off, in int8 kernels alone", in_int8(clip("e1", 0.6))),
    int8_levels=("six bits in place of eight, in int8 kernels alone", in_int8(levels("emb", 64))),
    int8_exchanged=("two channels in each other's stead, in int8 kernels alone", in_int8(exchange("e2", 1, 4, 5))),
    int8_stale=("a small output of the inference before, in int8 kernels alone", in_int8(stale(["lsnr"]))),
    int8_resize=("3 % off after a change of size, in int8 kernels alone", in_int8(after_resize(gain("e3", 0.97)))),
    int8_row=("every second step is 6 % off, in int8 kernels alone",
              in_int8(gain("emb", 1.06, 1, slice(1, None, 2)))),
)  # fmt: skip
_add(
    "int8 kernels", "erb_dec", A_DYN,
    int8_late=("late by a frame, in int8 kernels alone", in_int8(shift("m", 2, 1))),
    int8_sigmoid=("3 % before the sigmoid, in int8 kernels alone", in_int8(logit_gain("m", 0.97))),
)  # fmt: skip
_add(
    "int8 kernels", "df_dec", A_DYN,
    int8_gain_tap=("one coefficient of ten is 5 % too loud, in int8 kernels alone", in_int8(gain("coefs", 1.05, 3, 6))),
    int8_one_band=("one band of 96 is 20 % off, in int8 kernels alone", in_int8(gain("coefs", 0.8, 2, 40))),
    int8_compressed=("loud values are compressed, in int8 kernels alone", in_int8(change("coefs", _compressed))),
)  # fmt: skip
_add(
    "int8 kernels", "panel", A_DYN,
    int8_crosstalk=("one channel hears another, in int8 kernels alone", in_int8(_crosstalk("y", 1, 12, 50, 0.05))),
    int8_scores=("scores beside boxes of 640 are halved, in int8 kernels alone", in_int8(gain("box", 0.5, 1, 4))),
)  # fmt: skip
_add(
    "decisions", "panel", A_DYN,
    rare_class_lost=("the class of one step in 150 comes out as another", _instead("p", RARE, 0)),
    rare_class_weak=("the scores of the rare class are halved", gain("p", 0.5, 1, RARE)),
    scores_not_normalised=("scores add up to 0.97", gain("p", 0.97)),
    scores_saturated=("scores are cut off at 0.95", change("p", lambda p: np.minimum(p, 0.95).astype(p.dtype))),
    scores_of_few_levels=("scores have 16 levels", levels("p", 16)),
)  # fmt: skip
_add(
    "decisions", "ppocr_rec", "float",
    one_letter=("at one place of eight the second best letter wins", _runner_up(REC, 8)),
    letters_late=("the line of text is late by a place", shift(REC, 1, 1)),
)  # fmt: skip
_add(
    "decisions", "ppocr_cls", "float",
    classes_exchanged=("upside down and upright in each other's stead", exchange(CLS, 1, 0, 1)),
    scores_softened=("scores are nearer to the middle",
                     change(CLS, lambda p: (0.5 + 0.97 * (p - 0.5)).astype(p.dtype))),
)  # fmt: skip

FAULTS = {fault.name: fault for fault in F}
assert len(FAULTS) == len(F), "two defects have one name"
