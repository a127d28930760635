"""Whether weights are those of the float model, rounded as was asked for, and activations cost what rounding costs."""

import math

import numpy as np
from check_metrics import finding

# fmt: off


def beyond(layer, asked):
    method, kept = asked["method"], layer["kept"]
    may = method == "static" and (asked["calib"] is None or asked["equalize"]) and layer.get("equalized") is None
    if may or (method != "static" and kept == "static"):
        return False
    if kept == "quantized" and method in ("weight", "dynamic") and (
            layer["bits"] != asked["bits"] or layer["sym"] != asked["sym"]
            or layer["block"] not in (None, asked["block"])):
        return True
    most = 0.75 if method in ("weight", "dynamic", "static", "fp16") and not asked["hqq"] else 1.5
    return (kept == "quantized" and method == "fp16") or abs(layer["scale"] - 1) > 0.01 or layer["bias"] > 1e-5 or (
        layer["error"] > (0 if kept == "float" else most))


def rounding(made):
    """What leaves a run a FAIL."""
    layers, asked = made.get("rounding") or [], made["run_as"]
    if made["asked"]["method"] in ("recipe", "auto"):
        asked = made["asked"]
    bad = [layer for layer in layers if beyond(layer, asked)]
    floats = [layer for layer in layers if layer["kept"] in ("float", "fp16")]
    if asked["method"] in ("weight", "dynamic") and len(floats) > made["float_layers"]:
        bad += floats[:1]
    scales = [t["tensor"] for t in made.get("scales") or () if t["found"] is not None
              and (abs(t["found"][0] - t["scale"]) > 1e-3 * t["scale"] or t["found"][1] != t["zero"])]
    where = bad[0]["layer"] if bad else scales[0] if scales else None
    return [("FAIL", finding("QUANTIZATION_BEYOND_ROUNDING", "fail", where))] if where is not None else []


def costs(judge, made, here):
    """Found and predicted errors, and by how many dB the first exceed the others, of what int8 activations cost."""
    static, low = made["facts"]["static_tensors"] > 0, here and here["memory_mode"] == "low"
    told = {e["code"] for e in made["findings"]} & {"CALIBRATION_RANGE", "CALIBRATION_IDENTICAL"}
    excused = told or made["facts"]["max_pools"] or made["run_as"]["method"] != "static"
    if not here or here["failure"] or (excused if static or not low else not low):
        return "", {}
    if low and not static:
        way, found = "rows", judge.each(here["normal"], here["cases"])
    else:
        way, found = "tensors", judge.each((judge.float or judge.reference)["cases"], here["cases"])
    known = {(m["case"], name): s["sqnr_db"] for m in judge.reference.get("moved", ()) if m["by"] == way
             for name, s in m["outputs"].items()}
    cost = {}
    for name, cases in found.items():
        rows = [(c["sqnr_db"], p, c["n"]) for case, c in cases.items() if (p := known.get((case, name))) is not None
                and p < 90 and c["sqnr_db"] is not None and not c["problem"]]
        tips = judge.source["decisions"].get(name) in ("probabilities", "classes", "ordered", "set")
        if rows and not tips and sum(n for *_, n in rows) >= 64 and judge.source["kinds"][name] == "float":
            got, want = (sum(10 ** (-row[side] / 10) for row in rows) for side in (0, 1))
            excess = min(float(np.median([p - a for a, p, _ in rows])), 10 * math.log10(got / want))
            cost[name] = (-10 * math.log10(want / len(rows)), excess)
    return way, cost


def activations(way, cost):
    """What leaves a run a FAIL, or a warning, of that."""
    beyond = {name: excess for name, (_, excess) in cost.items() if excess > (16 if way == "tensors" else 10)}
    if not beyond:
        return []
    top = max(beyond.values())
    where = frozenset(name for name, each in beyond.items() if math.isclose(each, top, rel_tol=1e-6))
    verdict, level = ("PASS", "warn") if way == "tensors" else ("FAIL", "fail")
    return [(verdict, finding("QUANTIZATION_BEYOND_ROUNDING", level, where))]
