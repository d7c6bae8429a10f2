"""caffe-fcn: reads Caffe nets as Caffe does, and writes them as ONNX.

>>> import caffe_fcn
>>> net = caffe_fcn.Net("deploy.prototxt", "fcn8s.caffemodel", caffe_fcn.TEST)   # doctest: +SKIP
>>> caffe_fcn.convert("deploy.prototxt", "fcn8s.caffemodel", "fcn8s.onnx")       # doctest: +SKIP

Names are loaded when they are first used: importing the package costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import Any

from caffe_fcn._version import __version__
from caffe_fcn.errors import CaffeError, CaffeWarning

TRAIN, TEST = 0, 1  # the Phase of caffe.proto

_LAZY = {  # public name -> where it lives
    "Net": "caffe_fcn.pycaffe",
    "set_engine": "caffe_fcn.pycaffe",
    "Blob": "caffe_fcn.net",
    "NetSpec": "caffe_fcn.net_spec",
    "params": "caffe_fcn.net_spec",
    "convert": "caffe_fcn.conversion",
    "trace": "caffe_fcn.tracing",
    "verify": "caffe_fcn.verification",
    "Session": "caffe_fcn.runtime",
}
_MODULES = ("coords", "layers", "surgery", "models", "pycaffe", "runtime", "segment")

__all__ = ["TEST", "TRAIN", "CaffeError", "CaffeWarning", "__version__", *_LAZY, *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        value = getattr(importlib.import_module(_LAZY[name]), name)
    elif name in _MODULES:
        value = importlib.import_module(f"caffe_fcn.{name}")
    else:
        raise AttributeError(f"module 'caffe_fcn' has no attribute '{name}'")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
