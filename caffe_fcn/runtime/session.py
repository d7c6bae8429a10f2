"""A converted model, ready to run; and buffers that it runs in again and again."""

from __future__ import annotations

import contextlib
import importlib
import io
import itertools
import os
import threading
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from caffe_fcn.errors import CaffeError, CaffeWarning, DeviceError
from caffe_fcn.runtime.devices import (
    CPU,
    CUDA,
    NAMES,
    TENSORRT,
    Device,
    Profile,
    Wish,
    cuda_driver,
    default_cache,
    providers,
)
from caffe_fcn.runtime.model_file import input_shapes

#: numpy's names of onnxruntime's tensor types
DTYPES = {"float": "float32", "double": "float64", "string": "object"}
GRAPH = "gpu_graph_id"  # run option: the number of the captured graph to replay, -1 for none; 0 is reserved


class Session:
    """A converted model, ready to run. Threads may share it.

    Args:
        path: an .onnx file, or the bytes of one.
        device: "cuda", "tensorrt" or "cpu" run there or raise DeviceError; "auto" takes CUDA where it starts.
        tf32: let CUDA round the factors of products to 10 bits of mantissa; faster, not faithful. For TensorRT
            only the environment decides: without `tf32`, NVIDIA_TF32_OVERRIDE is set to 0 unless it is set.
        threads: of the CPU provider; 0 is onnxruntime's choice.
        optimize: onnxruntime's own graph rewriting.
        cuda_graphs: where the file fixes the sizes and all of it runs on CUDA, `bound` records a pass once
            and launches it as one from then on.
        cache: folder of TensorRT's engines; one in the user's cache folder by default.
        profile: for TensorRT, of each input the smallest shape, the one to be fastest at, and the largest. Without
            one it builds another engine whenever an image is larger or smaller than all before.

    Raises:
        DeviceError: the device cannot be had.
        CaffeError: this is no ONNX model, or onnxruntime does not accept it.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | bytes,
        device: Device = "auto",
        *,
        tf32: bool = False,
        threads: int = 0,
        optimize: bool = True,
        cuda_graphs: bool = True,
        cache: str | os.PathLike[str] | None = None,
        profile: Profile | None = None,
    ) -> None:
        self.path = "<bytes>" if isinstance(path, bytes) else os.fspath(path)
        source = path if isinstance(path, bytes) else self.path
        declared = input_shapes(self.path, path if isinstance(path, bytes) else None)
        #: whether the file fixes every extent but that of the batch
        self.fixed = all(None not in shape[1:] for shape in declared.values())
        wish = Wish(device, self.fixed, tf32, cuda_graphs and self.fixed, cache, profile or {})
        self._settings = {"intra_op_num_threads": threads, "enable_mem_pattern": self.fixed}
        self.session, self.captures = self._start(source, wish, optimize)
        self.device = NAMES[self.session.get_providers()[0]]
        self._refuse_other(device)
        self.inputs = {i.name: i for i in self.session.get_inputs()}
        self.outputs = [o.name for o in self.session.get_outputs()]
        self.metadata: dict[str, str] = dict(self.session.get_modelmeta().custom_metadata_map)
        self._graphs = itertools.count(1)
        # While CUDA records a pass, no other may run.
        self._alone: Any = threading.RLock() if self.captures else contextlib.nullcontext()

    def _start(self, source: str | bytes, wish: Wish, optimize: bool) -> tuple[Any, bool]:
        """(onnxruntime's session, whether it captures graphs): the first of the ways that works."""
        import onnxruntime as ort

        available = ort.get_available_providers()
        driver = wish.device != "cpu" and cuda_driver()
        if driver:
            _load_libraries(ort, wish)
        ways = [providers(wish, available, driver)]
        if driver and wish.capture and wish.device != "tensorrt":
            ways.append(providers(_without_capture(wish), available, driver))
        if len(ways[0]) > 1 and wish.device == "auto":
            ways.append(providers(Wish("cpu"), available, driver))
        problem: Exception | None = None
        for way in ways:
            try:
                # Left to itself onnxruntime goes on with the CPU, in Python and with a print.
                session = ort.InferenceSession(
                    source, self._options(ort, optimize), providers=way, enable_fallback=0
                )
            except Exception as error:  # noqa: BLE001 (onnxruntime's errors have no common base)
                problem = error
                continue
            session.disable_fallback()
            if wish.device == "auto" and driver and CUDA in available and CUDA not in session.get_providers():
                warnings.warn(
                    f"{self.path}: a GPU is here, but CUDA does not start; the CPU runs it. "
                    "`caffe-fcn doctor` says what is missing",
                    CaffeWarning,
                    stacklevel=3,
                )
            return session, CUDA in session.get_providers() and way[0][1].get("enable_cuda_graph") == "1"
        raise CaffeError(f"{self.path}: onnxruntime {ort.__version__} does not accept it: {problem}") from problem

    def _options(self, ort: Any, optimize: bool) -> Any:
        """Session options. Memory planned per shape is worth its while only where there is one shape."""
        options = ort.SessionOptions()
        options.log_severity_level = 4  # what goes wrong is raised, not printed
        for name, value in self._settings.items():
            setattr(options, name, value)
        if not optimize:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        return options

    def _refuse_other(self, device: Device) -> None:
        if device in ("auto", self.device):
            return
        name = {"cuda": "CUDA", "tensorrt": "TensorRT"}[device]
        hint = "`caffe-fcn doctor` says what is missing; --device cpu runs it here"
        if device == "tensorrt":
            hint = "it needs libnvinfer.so.10: pip install 'tensorrt-cu13<11'; --device cuda does without"
        raise DeviceError(
            f"{self.path}: {name} was asked for, but onnxruntime could not start it and took "
            f"{'CUDA' if self.device == 'cuda' else 'the CPU'}",
            hint,
        )

    def run(
        self, inputs: Mapping[str, np.ndarray], outputs: Sequence[str] | None = None
    ) -> dict[str, np.ndarray]:
        """One pass; arrays by name in, new arrays by name out.

        Raises CaffeError for a missing or unknown input, or one of a type or shape that the model does not take.
        """
        self.check({n: a.shape for n, a in inputs.items()}, {n: a.dtype for n, a in inputs.items()})
        names = list(outputs or self.outputs)
        feeds = {n: np.asarray(a, order="C") for n, a in inputs.items()}
        options = self.run_options(-1)
        with self._alone, self.explained():
            values = self.session.run(names, feeds, options)
        return dict(zip(names, values, strict=True))

    def bound(self, shapes: Mapping[str, Sequence[int]], outputs: Sequence[str] | None = None) -> Bound:
        """Buffers for inputs of these shapes, to run in repeatedly; of one thread at a time.

        Raises CaffeError for shapes that the model does not take.
        """
        self.check(shapes)
        return Bound(self, shapes, list(outputs or self.outputs), next(self._graphs) if self.captures else -1)

    def warmup(self, shapes: Sequence[Mapping[str, Sequence[int]]]) -> None:
        """Run each set of shapes once, the largest first, so that memory grows once.

        On a GPU the first pass of a shape chooses algorithms, or builds an engine.
        """
        for each in sorted(shapes, key=lambda s: -sum(float(np.prod(n)) for n in s.values())):
            self.run({n: np.zeros(shape, self.dtype(n)) for n, shape in each.items()})

    def dtype(self, name: str) -> np.dtype:
        """Of an input."""
        return _dtype(self.inputs[name])

    def check(
        self, shapes: Mapping[str, Sequence[int]], dtypes: Mapping[str, np.dtype] | None = None
    ) -> None:
        """CaffeError unless the model takes inputs of these names, shapes and types."""
        if set(shapes) != set(self.inputs):
            raise CaffeError(f"{self.path}: takes {sorted(self.inputs)}, got {sorted(shapes)}")
        open_: dict[str, tuple[int, str]] = {}  # symbol -> its value, and the input that gave it
        for name, info in self.inputs.items():
            shape, where = tuple(shapes[name]), f"{self.path}: input '{name}'"
            wanted = f"({', '.join(map(str, info.shape))})"
            if len(shape) != len(info.shape):
                raise CaffeError(f"{where} has {len(info.shape)} axes, {wanted}; got {len(shape)}: {shape}")
            for have, want in zip(shape, info.shape, strict=True):
                known = open_.setdefault(want, (have, name)) if isinstance(want, str) else (want, "")
                if known[0] not in (have, None):
                    other = f"; {want} is {known[0]} by input '{known[1]}'" if known[1] else ""
                    raise CaffeError(f"{where} is {wanted}, got {shape}{other}", self._way_out(have, want))
            if dtypes and dtypes[name] != self.dtype(name):
                raise CaffeError(
                    f"{where} is {self.dtype(name)}, got {dtypes[name]}",
                    f"convert the array: .astype('{self.dtype(name)}')",
                )

    def _way_out(self, have: int, want: int | str) -> str:
        return "convert without --input-shape for any size" if isinstance(want, int) and have > 0 else ""

    def run_options(self, graph: int) -> Any:
        """Which captured graph a pass replays; -1 for none. None where nothing is captured."""
        if not self.captures:
            return None
        import onnxruntime as ort

        options = ort.RunOptions()
        options.add_run_config_entry(GRAPH, str(graph))
        return options

    @contextlib.contextmanager
    def explained(self) -> Any:
        """What onnxruntime raises comes out as CaffeError that names the file."""
        try:
            yield
        except Exception as error:
            raise CaffeError(f"{self.path}: onnxruntime failed: {error}") from error


class Bound:
    """Buffers of a session for inputs of given shapes, allocated once.

    Write into `inputs`, call, read what comes back before the next call overwrites it.
    """

    def __init__(
        self, session: Session, shapes: Mapping[str, Sequence[int]], outputs: list[str], graph: int = -1
    ) -> None:
        self.inputs = {n: np.zeros(tuple(shape), session.dtype(n)) for n, shape in shapes.items()}
        self.outputs: dict[str, np.ndarray] = {}
        self._session, self._names, self._graph = session, outputs, graph
        self._binding = session.session.io_binding()
        self._resident: dict[str, Any] = {}  # on the GPU: a captured graph reads and writes fixed addresses
        for name, array in self.inputs.items():
            self._bind(name, array, self._binding.bind_cpu_input, self._binding.bind_ortvalue_input)

    def __call__(self) -> dict[str, np.ndarray]:
        """One pass over what `inputs` hold; the outputs by name."""
        self.load()
        self.execute()
        return self.fetch()

    def load(self) -> None:
        """Copy the inputs to where the session reads them, unless it reads these."""
        for name, array in self.inputs.items():
            if name in self._resident:
                self._resident[name].update_inplace(array)

    def execute(self) -> None:
        """One pass over what was loaded."""
        if not self.outputs:
            self._learn()
        session = self._session
        with session._alone, session.explained():
            session.session.run_with_iobinding(self._binding, session.run_options(self._graph))

    def fetch(self) -> dict[str, np.ndarray]:
        """The outputs of the last pass."""
        for name, array in self.outputs.items():
            if name in self._resident:
                array[...] = self._resident[name].numpy()
        return self.outputs

    def _learn(self) -> None:
        """The first pass: onnxruntime says how large the outputs are, and they get their buffers."""
        binding, session = self._binding, self._session
        for name in self._names:
            binding.bind_output(name)
        with session._alone, session.explained():
            session.session.run_with_iobinding(binding, session.run_options(-1))
        found = dict(zip(self._names, binding.get_outputs(), strict=True))
        binding.clear_binding_outputs()
        for name, value in found.items():
            array = self.outputs[name] = np.empty(value.shape(), value.numpy().dtype)
            self._bind(name, array, self._bind_host_output, binding.bind_ortvalue_output)

    def _bind(self, name: str, array: np.ndarray, host: Any, resident: Any) -> None:
        if self._graph == -1:
            host(name, array)
            return
        import onnxruntime as ort

        value = ort.OrtValue.ortvalue_from_shape_and_type(array.shape, array.dtype, "cuda", 0)
        self._resident[name] = value
        resident(name, value)

    def _bind_host_output(self, name: str, array: np.ndarray) -> None:
        self._binding.bind_output(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)


def _dtype(info: Any) -> np.dtype:
    name = info.type.removeprefix("tensor(").removesuffix(")")
    return np.dtype(DTYPES.get(name, name))


def _without_capture(wish: Wish) -> Wish:
    from dataclasses import replace

    return replace(wish, capture=False)


def _load_libraries(ort: Any, wish: Wish) -> None:
    """Load CUDA, cuDNN and TensorRT from where pip puts them; what is missing shows when the session starts."""
    with contextlib.redirect_stdout(io.StringIO()):  # preload_dlls prints
        if hasattr(ort, "preload_dlls"):
            ort.preload_dlls(directory="")
    if wish.device == "tensorrt":
        if not wish.tf32:
            os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")  # read once, when the first engine is built
        os.makedirs(wish.cache or default_cache(), exist_ok=True)
        with contextlib.suppress(ImportError):
            importlib.import_module("tensorrt")
