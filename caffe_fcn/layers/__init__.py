"""All layer types, one class each. Adding one: write its class in a file of this folder; the file is found."""

import importlib
import pkgutil

from caffe_fcn.layers.base import LAYERS, Layer

for _module in pkgutil.walk_packages(__path__, f"{__name__}."):
    importlib.import_module(_module.name)

__all__ = ["LAYERS", "Layer"]
