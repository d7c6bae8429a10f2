"""What is asked of onnxruntime for each device: providers and their options, as plain data."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

Device = Literal["auto", "cpu", "cuda", "tensorrt"]
DEVICES: tuple[str, ...] = get_args(Device)
CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
NAMES = {CPU: "cpu", CUDA: "cuda", TENSORRT: "tensorrt"}

Shape = Sequence[int]
#: Of each input: the smallest shape, the one to be fastest at, the largest.
Profile = Mapping[str, tuple[Shape, Shape, Shape]]


@dataclass(frozen=True)
class Wish:
    """How a session is to run."""

    device: Device = "auto"
    device_id: int = 0  # of several GPUs
    fixed: bool = False  # whether every image has the same size
    tf32: bool = False
    capture: bool = False  # record the kernels of a pass once, launch them as one afterwards
    cache: str | os.PathLike[str] | None = None  # TensorRT's engines
    profile: Profile = field(default_factory=dict)
    half: bool = False  # whether the file holds float16 weights
    cuda: Mapping[str, str] = field(default_factory=dict)  # further options of the CUDA provider


def providers(wish: Wish, available: Sequence[str], driver: bool) -> list[tuple[str, dict[str, str]]]:
    """What to hand onnxruntime as `providers`: what was asked for first, the CPU last.

    `available` are the providers that this onnxruntime was built with, `driver` says whether a GPU answers.
    """
    found: list[tuple[str, dict[str, str]]] = [(CPU, {})]
    if wish.device == "cpu" or not driver:
        return found
    if CUDA in available:
        found.insert(0, (CUDA, _cuda(wish)))
    if wish.device == "tensorrt" and TENSORRT in available:
        found.insert(0, (TENSORRT, _tensorrt(wish)))
    return found


def _cuda(wish: Wish) -> dict[str, str]:
    """Options of the CUDA provider.

    cuDNN tries every algorithm where sizes are fixed. Each new size would cost as much again, so elsewhere
    it goes by its heuristics; onnxruntime's DEFAULT is many times slower than either. Memory grows by what
    is asked where sizes repeat, and by powers of two elsewhere, which leaves fewer holes.
    """
    return {
        "device_id": str(wish.device_id),
        "cudnn_conv_algo_search": "EXHAUSTIVE" if wish.fixed else "HEURISTIC",
        "cudnn_conv_use_max_workspace": "1",
        "arena_extend_strategy": "kSameAsRequested" if wish.fixed else "kNextPowerOfTwo",
        "use_tf32": str(int(wish.tf32)),
        "prefer_nhwc": "0",  # falls back to TF32 where its graph will not build, whatever use_tf32 says
        "enable_cuda_graph": str(int(wish.capture)),
        **wish.cuda,
    }


def _tensorrt(wish: Wish) -> dict[str, str]:
    """Options of the TensorRT provider: engines take minutes to build, so they and their timings are kept.

    It multiplies float16 only where all of a file may be float16, layers of --keep-fp32 too.
    """
    cache = os.fspath(wish.cache or default_cache())
    options = {
        "device_id": str(wish.device_id),
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": cache,
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": cache,
        "trt_fp16_enable": str(int(wish.half)),
    }
    for i, key in enumerate(("min", "opt", "max") if wish.profile else ()):
        shapes = {name: three[i] for name, three in wish.profile.items()}
        options[f"trt_profile_{key}_shapes"] = ",".join(
            f"{name}:{'x'.join(map(str, shape))}" for name, shape in shapes.items()
        )
    return options


def default_cache() -> Path:
    """Where TensorRT's engines are kept: their names hold the model's hash and the GPU's kind."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "caffe-fcn" / "tensorrt"


def cuda_driver() -> bool:
    """Whether an NVIDIA driver is there; onnxruntime lists CUDA even without one."""
    for name in ("libcuda.so.1", "nvcuda.dll"):
        try:
            driver = ctypes.CDLL(name)
        except OSError:
            continue
        count = ctypes.c_int()
        return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0
    return False
