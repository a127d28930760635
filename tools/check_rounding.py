"""Whether weights are those of the float model, rounded as was asked for."""

from check_metrics import finding

# fmt: off


def beyond(layer, asked):
    method, kept = asked["method"], layer["kept"]
    if kept == "static" and (method != "static" or asked["calib"] is None or asked["equalize"]):
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
    return [("FAIL", finding("QUANTIZATION_BEYOND_ROUNDING", "fail", bad[0]["layer"]))] if bad else []
