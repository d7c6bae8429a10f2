"""All layer types, one class each. Adding one: write its class in a file of this folder; it is found."""

import importlib
import pkgutil
from typing import Any

from caffe_fcn.layers.base import LAYERS, Layer

for _module in pkgutil.walk_packages(__path__, f"{__name__}."):
    importlib.import_module(_module.name)

from caffe_fcn.layers.custom import load_layers  # noqa: E402 - the package's own types come first

__all__ = ["LAYERS", "Layer", "load_layers"]


def __getattr__(name: str) -> Any:
    """`from caffe_fcn import layers as L; L.Convolution(...)`: net_spec's `layers`, of the same name."""
    if name[0].isupper():
        return getattr(importlib.import_module("caffe_fcn.net_spec").layers, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
