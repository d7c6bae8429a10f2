"""How fast converted models run, beside what the device could do at most, all in one run."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from caffe_fcn.errors import CaffeError, nearest
from caffe_fcn.runtime import Bound, Device, Session
from caffe_fcn.runtime.cost import Cost, count

SIDE = 500  # of the image, where neither the file nor the caller says
WARMUP = 2  # passes before time is taken
#: Side of the matrices whose product sets the limit, and how many products a pass chains: enough to keep the
#: device busy for longer than it takes to start it.
LIMITS = {"cpu": (2048, 1), "cuda": (4096, 16), "tensorrt": (4096, 16)}
DTYPES = {"float": np.float32, "float16": np.float16, "double": np.float64}


@dataclass
class Figures:
    """One model's times in seconds, a pass each, and what a pass is."""

    model: str
    shapes: dict[str, tuple[int, ...]]
    device: str
    cost: Cost
    limits: list[float]  # multiply-accumulates a second of a plain matrix product, in each turn
    times: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.times)

    @property
    def p95(self) -> float:
        """The time that 19 of 20 passes keep."""
        return float(np.quantile(self.times, 0.95))

    @property
    def images(self) -> float:
        """Images a second."""
        return next(iter(self.shapes.values()), (1,))[0] / self.median

    @property
    def limit(self) -> float:
        """Multiply-accumulates a second that the device is capable of."""
        return statistics.median(self.limits)

    @property
    def rate(self) -> float:
        """Multiply-accumulates a second."""
        return self.cost.macs / self.median

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON takes it."""
        return {
            "model": self.model,
            "device": self.device,
            "shapes": {name: list(shape) for name, shape in self.shapes.items()},
            "median_s": self.median,
            "p95_s": self.p95,
            "images_per_s": self.images,
            "macs": self.cost.macs,
            "macs_per_s": self.rate,
            "limit_macs_per_s": self.limit,
            "share_of_limit": self.rate / self.limit,
            "times_s": self.times,
        }


def bench(
    models: Sequence[str | os.PathLike[str]],
    device: Device = "auto",
    *,
    shapes: Mapping[str, Sequence[int]] | None = None,
    batch: int = 1,
    rounds: int = 20,
    progress: Callable[[int], Any] | None = None,
    **options: Any,
) -> list[Figures]:
    """Time models in turns, with a plain matrix product in every turn.

    A pass takes its inputs from host memory and brings its outputs there. The first passes of each are not
    counted. `progress` is called with 1 after each pass.

    Args:
        shapes: of the inputs, by name; what a file leaves open is `batch` images of 500x500.
        options: those of `runtime.Session`.

    Raises:
        CaffeError: a model cannot be read, or does not take these shapes.
    """
    if rounds < 1 or batch < 1:
        raise CaffeError(f"{rounds} rounds of {batch} images: at least 1 of each")
    found: list[Figures] = []
    passes: list[Bound] = []
    limits: dict[tuple[str, str], list[float]] = {}
    for path in models:
        session = Session(path, device, **options)
        chosen = input_shapes(session, shapes or {}, batch)
        cost = count(path, chosen, "cpu" if session.device == "cpu" else "cuda")
        limit = limits.setdefault((session.device, cost.dtype), [])
        found.append(Figures(os.fspath(path), chosen, session.device, cost, limit))
        passes.append(_filled(session, chosen))
    products = [(product(*kind, **options), limit) for kind, limit in limits.items()]
    for turn in range(WARMUP + rounds):
        for (run, macs), limit in products:
            limit.append(macs / _time(run))
        for figures, run in zip(found, passes, strict=True):
            figures.times.append(_time(run))
            if progress:
                progress(1)
        if turn < WARMUP:
            for times in (*limits.values(), *(figures.times for figures in found)):
                times.clear()
    return found


def input_shapes(
    session: Session, given: Mapping[str, Sequence[int]], batch: int = 1
) -> dict[str, tuple[int, ...]]:
    """A shape for each input: as given, else as the file fixes it, else `batch` images of 500x500.

    Raises CaffeError for names that are no inputs, for shapes that the model does not take, and where an
    open extent is not an image's.
    """
    for name in given:
        if name not in session.inputs:
            raise CaffeError(
                f"{session.path}: no input '{name}'; the inputs are {', '.join(session.inputs)}",
                nearest(name, session.inputs),
            )
    shapes: dict[str, tuple[int, ...]] = {}
    for name, info in session.inputs.items():
        sides = (1, 2) if session.dtype(name) == np.uint8 else (2, 3)
        usual = {0: batch, **(dict.fromkeys(sides, SIDE) if len(info.shape) == 4 else {})}
        declared = [n if isinstance(n, int) else usual.get(i, 0) for i, n in enumerate(info.shape)]
        shape = list(given.get(name, declared))
        if 0 in shape:
            raise CaffeError(
                f"{session.path}: input '{name}' is {info.shape}, which leaves its size open",
                f"say how large: --input-shape {name}:N,...",
            )
        if batch > 1 and shape[0] != batch:
            raise CaffeError(f"{session.path}: input '{name}' is {tuple(shape)}, --batch asks for {batch}")
        shapes[name] = tuple(shape)
    session.check(shapes)
    return shapes


def product(device: str, dtype: str, **options: Any) -> tuple[Callable[[], Any], int]:
    """A chain of plain matrix products on a device: what runs it, and its multiply-accumulates.

    The matrices lie on the device and one number comes back, so that nothing but the products takes time.
    """
    from caffe_fcn.export.graph import Graph, Node, Value
    from caffe_fcn.export.write import to_model

    side, length = LIMITS[device]
    kind = DTYPES.get(dtype, np.float32)
    matrix = (np.random.default_rng(0).standard_normal((side, side)) / np.sqrt(side)).astype(kind)
    chain = ["matrix", *(f"power{i}" for i in range(length))]
    nodes = [Node("MatMul", [a, "matrix"], [b], {}, b, b) for a, b in pairwise(chain)]
    nodes.append(Node("ReduceMax", [chain[-1]], ["largest"], {"keepdims": 0}, "largest", "largest"))
    graph = Graph("product", [], [Value("largest", (), kind)], nodes, {"matrix": matrix})
    # Without optimisation, which would compute the products once and keep the result.
    session = Session(
        to_model(graph, opset=17).SerializeToString(), "cpu" if device == "cpu" else "cuda",
        **{**options, "optimize": False, "cuda_graphs": False},
    )  # fmt: skip
    return lambda: session.run({}), length * side**3


def _filled(session: Session, shapes: Mapping[str, Sequence[int]]) -> Bound:
    """Buffers that hold random pixels."""
    bound, rng = session.bound(shapes), np.random.default_rng(0)
    for array in bound.inputs.values():
        array[...] = rng.integers(0, 256, array.shape) - (0 if array.dtype == np.uint8 else 128)
    return bound


def _time(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
