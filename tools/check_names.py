"""How records are named, and variants and limits written."""

import hashlib
import re

# fmt: off


def safe(text):
    """A name as a file name."""
    plain = re.sub(r"[^A-Za-z0-9._=-]+", "_", text).strip("._") or "x"
    digest = hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()
    return plain if plain == text and len(plain) <= 60 else f"{plain[:60]}-{digest[:8]}"


def spell(v):
    """A variant as users write it."""
    if v["method"] == "recipe":
        return f"recipe:{v['file']}"
    parts = [v["method"] if v["bits"] is None else f"{v['method']}:{v['bits']}"]
    for k in ("calib", "percent", "weights", "clamp", "block", "rnn", "keep", "samples"):
        parts += [] if v[k] is None else [f"{k}={v[k]:.10g}" if isinstance(v[k], float) else f"{k}={v[k]}"]
    parts += [k for k in ("hqq", "sym", "asym", "equalize") if v[k]]
    return ",".join([*parts, *(f"skip={k}" for k in v["skip"])])


def limit_text(limit):
    return f"{limit['output'] + ':' if limit.get('output') else ''}{limit['metric']}{limit['op']}{limit['value']:g}"
