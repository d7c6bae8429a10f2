"""A converted model, ready to run."""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from caffe_fcn.errors import CaffeError
from caffe_fcn.runtime.bound import Bound
from caffe_fcn.runtime.devices import Device, Profile, Wish
from caffe_fcn.runtime.model_file import holds_half, input_shapes
from caffe_fcn.runtime.start import start

#: numpy's names of the tensor types that onnxruntime calls otherwise
_DTYPES = {"float": "float32", "double": "float64", "string": "object"}

Shapes = Mapping[str, Sequence[int]]


class Session:
    """A converted model, ready to run. Threads may share it.

    Args:
        path: an .onnx file, or the bytes of one.
        device: "cuda", "tensorrt" or "cpu" run there or raise DeviceError; "auto" takes CUDA where it starts.
        device_id: which GPU, of several.
        tf32: let CUDA round the factors of products to 10 bits of mantissa; faster, not faithful. TensorRT
            goes by the environment: without `tf32`, NVIDIA_TF32_OVERRIDE becomes 0 unless it is set.
        threads: of the CPU provider; 0 is onnxruntime's choice.
        optimize: onnxruntime's own graph rewriting.
        cuda_graphs: where the file fixes the sizes and all of it runs on CUDA, `bound` records one pass and
            launches it as a whole from then on.
        cache: folder of TensorRT's engines; one in the user's cache folder by default.
        profile: for TensorRT, of each input the smallest shape, the one to be fastest at, and the largest.
            Without one it builds another engine whenever a size lies outside all before.
        cuda: further options of onnxruntime's CUDA provider; they override ours.
        options: further attributes of onnxruntime's SessionOptions, or config entries ("session. ...").

    Raises:
        DeviceError: the device cannot be had.
        CaffeError: this is no ONNX model, or onnxruntime does not accept it.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | bytes,
        device: Device = "auto",
        *,
        device_id: int = 0,
        tf32: bool = False,
        threads: int = 0,
        optimize: bool = True,
        cuda_graphs: bool = True,
        cache: str | os.PathLike[str] | None = None,
        profile: Profile | None = None,
        cuda: Mapping[str, str] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        data = path if isinstance(path, bytes) else None
        self.path = "<bytes>" if isinstance(path, bytes) else os.fspath(path)
        declared = input_shapes(self.path, data)
        #: whether the file fixes every extent but that of the batch
        self.fixed = all(None not in shape[1:] for shape in declared.values())
        half = device == "tensorrt" and holds_half(self.path, data)
        captured = cuda_graphs and self.fixed
        wish = Wish(device, device_id, self.fixed, tf32, captured, cache, profile or {}, half, cuda or {})
        # Memory planned ahead for each shape is worth its while only where there is one shape.
        settings = {"intra_op_num_threads": threads, "enable_mem_pattern": self.fixed, **(options or {})}
        if not optimize:
            import onnxruntime as ort

            settings["graph_optimization_level"] = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        self.session, self.device, self.captures = start(data or self.path, self.path, wish, settings)
        self.device_id = device_id
        self.inputs = {i.name: i for i in self.session.get_inputs()}
        self.outputs = [o.name for o in self.session.get_outputs()]
        self.metadata: dict[str, str] = dict(self.session.get_modelmeta().custom_metadata_map)
        self._graphs = itertools.count(1)
        # While CUDA records a pass, no other may run.
        self._turn: Any = threading.RLock() if self.captures else contextlib.nullcontext()

    def run(
        self, inputs: Mapping[str, np.ndarray], outputs: Sequence[str] | None = None
    ) -> dict[str, np.ndarray]:
        """One pass; arrays by name in, new arrays by name out.

        Raises CaffeError for inputs of other names, types or shapes than the model takes.
        """
        self.check({n: a.shape for n, a in inputs.items()}, {n: a.dtype for n, a in inputs.items()})
        names = list(outputs or self.outputs)
        feeds = {n: np.asarray(a, order="C") for n, a in inputs.items()}
        with self.turn():
            values = self.session.run(names, feeds, self.run_options())
        return dict(zip(names, values, strict=True))

    def bound(self, shapes: Shapes) -> Bound:
        """Buffers for inputs of these shapes, to run in again and again; for one thread at a time.

        Raises CaffeError for shapes that the model does not take.
        """
        self.check(shapes)
        return Bound(self, shapes, next(self._graphs) if self.captures else None)

    def warmup(self, shapes: Sequence[Shapes]) -> None:
        """Run each set of shapes once, the largest first, so that memory grows once.

        On a GPU the first pass of a shape chooses algorithms, or builds an engine.
        """
        for each in sorted(shapes, key=lambda s: -sum(float(np.prod(n)) for n in s.values())):
            self.check(each)
            self.run({n: np.zeros(tuple(shape), self.dtype(n)) for n, shape in each.items()})

    def dtype(self, name: str) -> np.dtype:
        """Of an input."""
        kind = self.inputs[name].type.removeprefix("tensor(").removesuffix(")")
        return np.dtype(_DTYPES.get(kind, kind))

    def check(self, shapes: Shapes, dtypes: Mapping[str, np.dtype] | None = None) -> None:
        """CaffeError unless the model takes inputs of these names, shapes and types."""
        if set(shapes) != set(self.inputs):
            raise CaffeError(f"{self.path}: takes {sorted(self.inputs)}, got {sorted(shapes)}")
        known: dict[str, tuple[int, str]] = {}  # an extent's symbol -> its size, and the input that told it
        for name, info in self.inputs.items():
            self._check_shape(name, tuple(shapes[name]), info.shape, known)
            if dtypes and dtypes[name] != self.dtype(name):
                want = self.dtype(name)
                raise CaffeError(
                    f"{self.path}: input '{name}' takes {want}, got {dtypes[name]}",
                    f"convert the array: .astype('{want}')",
                )

    def _check_shape(
        self, name: str, have: tuple[int, ...], want: list[Any], known: dict[str, tuple[int, str]]
    ) -> None:
        where = f"{self.path}: input '{name}' takes ({', '.join(str(n or '?') for n in want)}), got {have}"
        if len(have) != len(want):
            raise CaffeError(f"{where}: {len(have)} axes instead of {len(want)}")
        for axis, (n, wanted) in enumerate(zip(have, want, strict=True)):
            if isinstance(wanted, str) and known.setdefault(wanted, (n, name))[0] != n:
                size, other = known[wanted]
                raise CaffeError(f"{where}: {wanted} is {size} by input '{other}'")
            if isinstance(wanted, int) and n != wanted:
                free = axis in (1, 2) if self.dtype(name) == np.uint8 else axis != 1
                hint = "convert without --input-shape for any size" if free else ""
                raise CaffeError(f"{where}: axis {axis} is {n} instead of {wanted}", hint)

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """For the time of one pass; what onnxruntime raises in it comes out as CaffeError."""
        try:
            with self._turn:
                yield
        except Exception as error:
            raise CaffeError(f"{self.path}: onnxruntime failed: {error}") from error

    def run_options(self, graph: int | None = None) -> Any:
        """Options of a pass that records, then replays, the CUDA graph of this number (None: no graph)."""
        if not self.captures:
            return None
        import onnxruntime as ort

        options = ort.RunOptions()
        options.add_run_config_entry("gpu_graph_id", str(-1 if graph is None else graph))  # 0 is reserved
        return options
