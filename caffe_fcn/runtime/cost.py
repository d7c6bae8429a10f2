"""What a pass costs: multiply-accumulates, counted from the shapes that a real pass had."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from caffe_fcn.runtime.devices import Device
from caffe_fcn.runtime.session import Session

RECURRENT = ("RNN", "GRU", "LSTM")


class Cost(NamedTuple):
    macs: int
    dtype: str  # of the numbers that most of them multiply, as onnxruntime calls it: "float", "float16"


def count(
    model: str | os.PathLike[str] | bytes, shapes: Mapping[str, Sequence[int]], device: Device = "cpu"
) -> Cost:
    """Multiply-accumulates of one pass of a model at the given shapes of its inputs.

    Counted are the products of Conv, ConvTranspose, Gemm, MatMul and recurrent nodes, as the file has them:
    onnxruntime runs it once without its own rewriting and tells the shapes that every node met.
    """
    with tempfile.TemporaryDirectory(prefix="caffe-fcn.") as folder:
        profiling = {
            "enable_profiling": True,
            "profile_file_prefix": str(Path(folder) / "pass"),
            "session.disable_prepacking": "1",  # or a weight that is packed has no shape any more
        }
        session = Session(model, device, optimize=False, cuda_graphs=False, options=profiling)
        session.run({n: np.zeros(tuple(s), session.dtype(n)) for n, s in shapes.items()})
        events = json.loads(Path(session.session.end_profiling()).read_text(encoding="utf-8"))
    return total(event["args"] for event in events if "op_name" in event.get("args", {}))


def total(nodes: Iterable[Mapping[str, Any]]) -> Cost:
    """The cost of nodes, as onnxruntime's profile describes them: `op_name`, `input_type_shape` ..."""
    counts: Counter[str] = Counter()
    for node in nodes:
        shapes = [next(iter(t.items())) for t in node.get("input_type_shape", []) if t]
        results = [next(iter(t.items())) for t in node.get("output_type_shape", []) if t]
        if shapes and results:
            counts[shapes[0][0]] += _macs(node["op_name"], [s for _, s in shapes], [s for _, s in results])
    dtype = counts.most_common(1)[0][0] if counts else "float"
    return Cost(sum(counts.values()), dtype)


def _macs(op: str, inputs: list[list[int]], outputs: list[list[int]]) -> int:
    """Products of a node: of each output (ConvTranspose: of each input) as many as a weight's row is long."""
    if op == "Conv":
        return math.prod(outputs[0]) * math.prod(inputs[1][1:])
    if op == "ConvTranspose":
        return math.prod(inputs[0]) * math.prod(inputs[1][1:])
    if op == "MatMul":
        return math.prod(outputs[0]) * inputs[0][-1]
    if op == "Gemm":  # the axis that is summed over is what A has beside the output's rows
        return outputs[0][1] * math.prod(inputs[0])
    if op in RECURRENT:
        return inputs[0][0] * inputs[0][1] * (math.prod(inputs[1]) + math.prod(inputs[2]))
    return 0
