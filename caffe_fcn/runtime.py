"""Sessions of onnxruntime on the device asked for, never a silent fall-back. Its only importer."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from caffe_fcn.errors import CaffeError, DeviceError

Device = Literal["auto", "cpu", "cuda"]


class Session:
    """A converted model, ready to run.

    Args:
        path: an .onnx file, or the bytes of one.
        device: "cuda" or "cpu" run there or raise DeviceError; "auto" takes CUDA where it starts.
        tf32: let CUDA round the factors of products to 10 bits of mantissa; faster, not faithful.
        threads: of the CPU provider; 0 is onnxruntime's choice.
        optimize: onnxruntime's own graph rewriting.

    Raises:
        DeviceError: the device cannot be had.
        CaffeError: onnxruntime does not accept the file.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | bytes,
        device: Device = "auto",
        *,
        tf32: bool = False,
        threads: int = 0,
        optimize: bool = True,
    ) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.log_severity_level = 4  # what goes wrong is raised, not printed
        options.intra_op_num_threads = threads
        if not optimize:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        self.path = "<bytes>" if isinstance(path, bytes) else os.fspath(path)
        source = path if isinstance(path, bytes) else self.path
        self.session = self._open(ort, source, options, device, tf32)
        self.device: str = "cuda" if "CUDAExecutionProvider" in self.session.get_providers() else "cpu"
        if device == "cuda" and self.device != "cuda":
            raise DeviceError(
                f"{self.path}: CUDA was asked for, but onnxruntime could not start it and took the CPU",
                "`caffe-fcn doctor` says what is missing; --device cpu runs it here",
            )
        self.inputs = {i.name: i for i in self.session.get_inputs()}
        self.outputs = [o.name for o in self.session.get_outputs()]
        self.metadata: dict[str, str] = dict(self.session.get_modelmeta().custom_metadata_map)

    def _open(self, ort: Any, source: Any, options: Any, device: Device, tf32: bool) -> Any:
        providers: list[Any] = ["CPUExecutionProvider"]
        if device != "cpu" and "CUDAExecutionProvider" in ort.get_available_providers() and cuda_driver():
            ort.preload_dlls(directory="")
            cuda = {"use_tf32": str(int(tf32)), "cudnn_conv_algo_search": "HEURISTIC"}
            providers.insert(0, ("CUDAExecutionProvider", cuda))
        try:
            return ort.InferenceSession(source, options, providers=providers)
        except Exception as error:
            raise CaffeError(
                f"{self.path}: onnxruntime {ort.__version__} does not accept it: {error}"
            ) from error

    def run(
        self, inputs: Mapping[str, np.ndarray], outputs: Sequence[str] | None = None
    ) -> dict[str, np.ndarray]:
        """One pass; arrays by name in, arrays by name out.

        Raises CaffeError for a missing or unknown input, or one of a shape that the model does not take.
        """
        if set(inputs) != set(self.inputs):
            raise CaffeError(f"{self.path}: takes {sorted(self.inputs)}, got {sorted(inputs)}")
        names = list(outputs or self.outputs)
        try:
            values = self.session.run(names, {n: np.asarray(a, order="C") for n, a in inputs.items()})
        except Exception as error:
            raise CaffeError(f"{self.path}: onnxruntime failed: {error}") from error
        return dict(zip(names, values, strict=True))


def cuda_driver() -> bool:
    """Whether an NVIDIA driver is there; onnxruntime lists CUDA even without one."""
    import ctypes

    for name in ("libcuda.so.1", "nvcuda.dll"):
        try:
            driver = ctypes.CDLL(name)
        except OSError:
            continue
        count = ctypes.c_int()
        return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0
    return False
