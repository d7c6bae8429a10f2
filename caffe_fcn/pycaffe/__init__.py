"""What `import caffe` offers to old scripts: pycaffe's names, with its semantics (python/caffe).

    python -m caffe_fcn.pycaffe script.py ARGS      runs a script that imports caffe, as it is
    caffe_fcn.pycaffe.install()                     does the same inside a program
    from caffe_fcn import pycaffe as caffe          changes one line of it

docs/from-pycaffe.md says what runs and what differs.
"""

from __future__ import annotations

import logging
import time
from typing import Any

from caffe_fcn import net_spec
from caffe_fcn.blob import Blob
from caffe_fcn.errors import CaffeError, CaffeWarning
from caffe_fcn.fillers import seed as set_random_seed
from caffe_fcn.layers import LAYERS
from caffe_fcn.layers.python import PythonLayer as Layer
from caffe_fcn.net import TEST, TRAIN
from caffe_fcn.net_spec import NetSpec, layers, params, to_proto
from caffe_fcn.pycaffe import classifier, coord_map, detector, draw, io, proto
from caffe_fcn.pycaffe import net as pycaffe
from caffe_fcn.pycaffe.classifier import Classifier
from caffe_fcn.pycaffe.detector import Detector
from caffe_fcn.pycaffe.engine import set_device, set_engine, set_mode_cpu, set_mode_gpu
from caffe_fcn.pycaffe.net import Net
from caffe_fcn.pycaffe.shim import install
from caffe_fcn.pycaffe.training import (
    NCCL,
    AdaDeltaSolver,
    AdaGradSolver,
    AdamSolver,
    NesterovSolver,
    RMSPropSolver,
    SGDSolver,
    get_solver,
    has_nccl,
    set_multiprocess,
    set_solver_count,
    set_solver_rank,
    solver_count,
    solver_rank,
)

__all__ = [
    "NCCL", "TEST", "TRAIN", "AdaDeltaSolver", "AdaGradSolver", "AdamSolver", "Blob", "CaffeError",
    "CaffeWarning", "Classifier", "Detector", "Layer", "NesterovSolver", "Net", "NetSpec", "RMSPropSolver",
    "SGDSolver", "Timer", "classifier", "coord_map", "detector", "draw", "get_solver", "has_nccl", "init_log",
    "install", "io", "layer_type_list", "layers", "log", "net_spec", "params", "proto", "pycaffe",
    "set_device", "set_engine", "set_mode_cpu", "set_mode_gpu", "set_multiprocess", "set_random_seed",
    "set_solver_count", "set_solver_rank", "solver_count", "solver_rank", "to_proto",
]  # fmt: skip

__version__ = "1.0.0"  # of the Caffe whose semantics these are

_log = logging.getLogger("caffe")


def layer_type_list() -> list[str]:
    """The types of layers that a prototxt may name."""
    return sorted(LAYERS)


def init_log(level: int = 0, stderr: bool = True) -> None:
    """Show what `log` is given, from this level on: 0 all, 1 warnings, 2 errors; if `stderr`, there."""
    _log.setLevel((logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL)[min(max(level, 0), 3)])
    if stderr and not _log.handlers:
        _log.addHandler(logging.StreamHandler())


def log(message: str) -> None:
    """Note something, in the logger `caffe`."""
    _log.info(message)


class Timer:
    """A stopwatch: `start`, `stop`, then `ms`."""

    def __init__(self) -> None:
        self._start = self._stop = time.perf_counter()

    def start(self) -> None:
        """Begin."""
        self._start = time.perf_counter()

    def stop(self) -> None:
        """End."""
        self._stop = time.perf_counter()

    @property
    def ms(self) -> float:
        """Milliseconds between the two."""
        return (self._stop - self._start) * 1000


def __getattr__(name: str) -> Any:
    raise AttributeError(f"caffe.{name} is not offered by caffe_fcn.pycaffe (docs/from-pycaffe.md)")
