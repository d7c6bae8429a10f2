"""Starts a session of onnxruntime: the first of the ways that works, and never another device in silence."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import warnings
from dataclasses import replace
from typing import Any, NamedTuple

from caffe_fcn.errors import CaffeError, CaffeWarning, DeviceError, nearest
from caffe_fcn.runtime.devices import CUDA, DEVICES, NAMES, Wish, cuda_driver, default_cache, providers

_HINTS = {
    "cuda": "`caffe-fcn doctor` says what is missing; --device cpu runs it here",
    "tensorrt": "it needs libnvinfer.so.10: pip install 'tensorrt-cu13<11'; --device cuda does without",
}


class Started(NamedTuple):
    session: Any  # onnxruntime's
    device: str
    captures: bool  # whether it can record a pass as a CUDA graph


def start(source: str | bytes, path: str, wish: Wish, settings: dict[str, Any]) -> Started:
    """Start a session of a model.

    Args:
        source: the file, or its bytes; `path` is what messages call it.
        wish: device and options.
        settings: attributes of onnxruntime's SessionOptions, and config entries, which have a dot in them.

    Raises:
        DeviceError: there is no such device, or it cannot be had.
        CaffeError: onnxruntime does not accept the model.
    """
    import onnxruntime as ort

    if wish.device not in DEVICES:
        raise DeviceError(
            f"no device '{wish.device}'; there are {', '.join(DEVICES)}", nearest(wish.device, DEVICES)
        )
    available = ort.get_available_providers()
    driver = wish.device != "cpu" and cuda_driver()
    if driver:
        _load_libraries(ort, wish)
    problem: Exception | None = None
    for way in _ways(wish):
        asked = providers(way, available, driver)
        try:
            # Left to itself onnxruntime's Python goes on with the CPU, and prints that it does.
            session = ort.InferenceSession(
                source, _options(ort, settings), providers=asked, enable_fallback=0
            )
        except Exception as error:  # noqa: BLE001 (onnxruntime's errors have no base of their own)
            problem = error
            continue
        session.disable_fallback()
        device = NAMES[session.get_providers()[0]]
        _refuse_other(path, wish, device)
        if driver and CUDA in available and device == "cpu":
            warnings.warn(
                f"{path}: a GPU is here, but CUDA does not start; the CPU runs it\n  {_HINTS['cuda']}",
                CaffeWarning,
                stacklevel=3,
            )
        return Started(session, device, way.capture and device == "cuda")
    raise CaffeError(f"{path}: onnxruntime {ort.__version__} does not accept it: {problem}") from problem


def _ways(wish: Wish) -> list[Wish]:
    """What to try in turn. A graph with nodes outside CUDA refuses to be captured; auto may fall back."""
    plain = replace(wish, capture=False)
    ways = [wish] if wish.capture and wish.device in ("auto", "cuda") else []
    return [*ways, plain, *([replace(plain, device="cpu")] if wish.device == "auto" else [])]


def _refuse_other(path: str, wish: Wish, device: str) -> None:
    if wish.device not in ("auto", device):
        names = {"cuda": "CUDA", "tensorrt": "TensorRT", "cpu": "the CPU"}
        raise DeviceError(
            f"{path}: {names[wish.device]} was asked for, but onnxruntime could not start it and took "
            f"{names[device]}",
            _HINTS[wish.device],
        )


def _options(ort: Any, settings: dict[str, Any]) -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = 4  # what goes wrong is raised, not printed
    # Threads that wait spin by default, on cores that others need: reading and writing images, other
    # sessions. On two cores that are shared it doubles the time of a pass; alone they gain nothing by it.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    for name, value in settings.items():
        if "." in name:
            options.add_session_config_entry(name, value)
        else:
            setattr(options, name, value)
    return options


def _load_libraries(ort: Any, wish: Wish) -> None:
    """Load CUDA, cuDNN and TensorRT from where pip puts them; what is missing shows when a session starts."""
    if hasattr(ort, "preload_dlls"):
        with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does not find
            ort.preload_dlls(directory="")
    if wish.device == "tensorrt":
        if not wish.tf32:
            os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")  # read once, when the first engine is built
        os.makedirs(wish.cache or default_cache(), exist_ok=True)
        with contextlib.suppress(ImportError):
            importlib.import_module("tensorrt")
