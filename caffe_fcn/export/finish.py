"""What stands around a net's graph: preprocessing before, softmax or labels behind, metadata beside."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from caffe_fcn.errors import CaffeError
from caffe_fcn.export.builder import Builder
from caffe_fcn.export.graph import Graph, Node, Value
from caffe_fcn.labels import labels_of, palette
from caffe_fcn.symbols import Shape

#: Mean of the ILSVRC images in BGR, which VGG-16, the FCN nets and most of the model zoo subtract.
IMAGENET_MEAN = (104.00698793, 116.66876762, 122.67891434)


@dataclass
class Pixels:
    """How an image becomes the net's input: (pixel - mean) * scale, channels in BGR order."""

    mean: Sequence[float] = IMAGENET_MEAN
    scale: float = 1.0


def preprocess(graph: Graph, pixels: Pixels) -> None:
    """Let the graph take uint8 RGB pixels (N, H, W, 3) in place of its float input, as input `image`.

    Raises CaffeError if the net has several inputs, or not three channels.
    """
    if len(graph.inputs) != 1 or len(graph.inputs[0].shape) != 4 or graph.inputs[0].shape[1] != 3:
        has = ", ".join(f"{v.name} {v.shape}" for v in graph.inputs)
        raise CaffeError(f"--preprocess needs one input of 3 channels (N, 3, H, W); the net has {has}")
    # A net may have blobs of the names that are used here, its input among them.
    ours = {"image", *(f"preprocess/{op}" for op in ("Gather", "Transpose", "Cast", "Sub"))}
    taken = graph.names()
    graph.rename({name: Builder.fresh(f"{name}/float", taken) for name in ours & taken})
    data = graph.inputs[0]
    n, _, h, w = data.shape
    graph.inputs[0] = Value("image", (n, h, w, 3), np.uint8)
    constants: dict[str, np.ndarray] = {
        "preprocess.bgr": np.asarray([2, 1, 0], np.int64),
        "preprocess.mean": np.asarray(pixels.mean, np.float32).reshape(1, -1, 1, 1),
        "preprocess.scale": np.asarray(pixels.scale, np.float32),
    }
    steps: list[tuple[str, list[str], dict[str, Any]]] = [
        ("Gather", ["image", "preprocess.bgr"], {"axis": 3}),
        ("Transpose", [""], {"perm": [0, 3, 1, 2]}),
        ("Cast", [""], {"to": 1}),
        ("Sub", ["", "preprocess.mean"], {}),
        *([("Mul", ["", "preprocess.scale"], {})] if pixels.scale != 1 else []),
    ]
    if pixels.scale == 1:
        del constants["preprocess.scale"]
    nodes, last = [], "image"
    for i, (op, inputs, attributes) in enumerate(steps):
        top = data.name if i == len(steps) - 1 else f"preprocess/{op}"
        nodes.append(
            Node(op, [x or last for x in inputs], [top], attributes, f"preprocess/{op}", "preprocess")
        )
        last = top
    graph.nodes = nodes + graph.nodes
    graph.constants.update(constants)
    graph.values[data.name] = data


def softmax(graph: Graph) -> None:
    """Replace each output by its softmax over the classes (axis 1), called BLOB_prob."""
    taken = graph.names()
    for i, score in enumerate(graph.outputs):
        _has_classes(score, "--softmax")
        name = _free(taken, f"{score.name}_prob")
        graph.nodes.append(Node("Softmax", [score.name], [name], {"axis": 1}, name, name))
        graph.outputs[i] = score._replace(name=name)
        graph.values.setdefault(score.name, score)


def argmax(graph: Graph) -> None:
    """Replace each output (N, classes, ...) by the index of its largest class, called BLOB_label.

    uint8, or int32 for more than 256 classes; the first of equals, as NumPy's argmax.
    """
    taken = graph.names()
    for i, score in enumerate(graph.outputs):
        _has_classes(score, "--argmax")
        name, index = _free(taken, f"{score.name}_label"), _free(taken, f"{score.name}_index")
        dtype, code = (np.uint8, 2) if score.shape[1] <= 256 else (np.int32, 6)
        graph.nodes.append(
            Node("ArgMax", [score.name], [index], {"axis": 1, "keepdims": 0}, f"{name}/ArgMax", name)
        )
        graph.nodes.append(Node("Cast", [index], [name], {"to": code}, name, name))
        graph.outputs[i] = Value(name, (score.shape[0], *score.shape[2:]), dtype)
        graph.values.setdefault(score.name, score)


def _has_classes(score: Value, option: str) -> None:
    if len(score.shape) < 2:
        raise CaffeError(f"{option} needs outputs of at least 2 axes; '{score.name}' is {score.shape}")


def describe(graph: Graph, scores: Sequence[Value], pixels: Pixels, embedded: bool) -> None:
    """Metadata that a program needs to use the file: pixels in, classes and colours out.

    `scores` are the outputs as they were before softmax and argmax.
    """
    graph.metadata["preprocessing"] = "in the graph" if embedded else "by the caller"
    graph.metadata["channel_order"] = "RGB" if embedded else "BGR"
    graph.metadata["layout"] = "NHWC" if embedded else "NCHW"
    graph.metadata["mean"] = json.dumps([float(m) for m in pixels.mean])
    graph.metadata["scale"] = json.dumps(float(pixels.scale))
    shapes: dict[Shape, None] = dict.fromkeys(v.shape for v in scores)
    classes = {s[1]: s for s in shapes if len(s) > 1}.values()  # one shape for each number of them
    sides = {v.shape[1:3] if v.dtype == np.uint8 else v.shape[2:] for v in graph.inputs}
    dense: list[Shape] = [s for s in shapes if len(s) == 4 and s[2:] in sides]
    sets = {s: labels_of(s, list(classes)) for s in dense}
    pairs = [(out.name, sets.get(v.shape)) for out, v in zip(graph.outputs, scores, strict=True)]
    known = {name: found for name, found in pairs if found}
    if known:
        graph.metadata["classes"] = json.dumps({n: list(s.classes) for n, s in known.items()})
        graph.metadata["palette"] = json.dumps(
            {n: palette(len(s.classes)).tolist() for n, s in known.items()}
        )
        graph.metadata["label_set"] = json.dumps({n: s.name for n, s in known.items()})


def _free(taken: set[str], name: str) -> str:
    free = Builder.fresh(name, taken)
    taken.add(free)
    return free


def finish(graph: Graph, pixels: Pixels, *, softmax_: bool, argmax_: bool, preprocess_: bool) -> None:
    """All of it, in the order in which it has to be done."""
    scores = list(graph.outputs)
    if softmax_:
        softmax(graph)
    if argmax_:
        argmax(graph)
    if preprocess_:
        preprocess(graph, pixels)
    describe(graph, scores, pixels, preprocess_)
