"""Which engine runs a net, and where: NumPy (exact, every blob) or onnxruntime (fast)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

from caffe_fcn.errors import CaffeError, nearest

ENGINES = ("numpy", "onnxruntime")
VARIABLE = "CAFFE_FCN_ENGINE"


@dataclass
class Choice:
    """What the program chose; it holds for every net, from its next forward pass on."""

    engine: str = ""  # "" for what the environment says
    gpu: bool = False
    device: int = 0
    pinned: bool = False  # whether set_mode_cpu and set_mode_gpu are without effect


chosen = Choice()


def set_engine(name: Literal["numpy", "onnxruntime"]) -> None:
    """Run the forward passes of nets in NumPy (the default) or in onnxruntime.

    The environment variable CAFFE_FCN_ENGINE says the same for a script that is not to be changed. Raises
    CaffeError for another name.
    """
    chosen.engine = _known(name, "set_engine")


def engine() -> str:
    """The engine that the next forward pass runs in."""
    return chosen.engine or _known(os.environ.get(VARIABLE) or ENGINES[0], VARIABLE)


def _known(name: str, where: str) -> str:
    if name not in ENGINES:
        raise CaffeError(f"{where}: no engine '{name}'", nearest(name, ENGINES) or f"there are {ENGINES}")
    return name


def set_mode_cpu() -> None:
    """Run onnxruntime on the CPU; the default."""
    chosen.gpu = chosen.gpu and chosen.pinned


def set_mode_gpu() -> None:
    """Run onnxruntime on a GPU, through CUDA. The NumPy engine stays on the CPU, and says so."""
    chosen.gpu = chosen.gpu or not chosen.pinned


def pin(device: Literal["cpu", "gpu"]) -> None:
    """Choose the device whatever the script says of it from now on."""
    chosen.gpu, chosen.pinned = device == "gpu", True


def set_device(number: int) -> None:
    """Choose the GPU that set_mode_gpu means."""
    chosen.device = int(number)
