"""`python -m tests.report.explorer MODEL FILE`: loads node data as Model Explorer does, and matches it against the
graph that Model Explorer's own adapters make of MODEL.

Needs ai-edge-model-explorer (0.1.34), and for ONNX model-explorer-onnx (0.4.2), in an environment of their own.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any


def nodes_of(model: str) -> list[Any]:
    """Of the main graph."""
    if model.endswith(".onnx"):
        graphs = importlib.import_module("model_explorer_onnx.main").ONNXAdapter().convert(model, {})
    else:
        module = importlib.import_module("model_explorer.builtin_tflite_flatbuffer_adapter")
        graphs = module.BuiltinTfliteFlatbufferAdapter().convert(model, {})
    held = (graphs.get("graphCollections") or [graphs])[0]
    return list(field(field(held, "graphs")[0], "nodes"))


def field(held: Any, name: str) -> Any:
    """One adapter answers with dictionaries, the other with objects."""
    return held.get(name) if isinstance(held, dict) else getattr(held, name)


def main(model: str, file: str) -> int:
    """1 where something in FILE is no node of MODEL."""
    data = json.loads(Path(file).read_text())
    kind = importlib.import_module("model_explorer.node_data_builder").GraphNodeData
    dacite = importlib.import_module("dacite")
    loaded = dacite.from_dict(kind, data, config=dacite.Config(strict=True))
    assert json.loads(loaded.to_json_string())["results"].keys() == data["results"].keys()
    nodes = nodes_of(model)
    known = {field(node, "id") for node in nodes}
    for output in (output for node in nodes for output in field(node, "outputsMetadata") or []):
        known |= {field(each, "value") for each in field(output, "attrs") if field(each, "key") == "tensor_name"}
    lost = [name for name in data["results"] if name not in known]
    print(f"{len(data['results'])} results, {len(lost)} of them match no node {lost[:5]}; {len(nodes)} nodes")
    return int(bool(lost) or not data["results"])


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
