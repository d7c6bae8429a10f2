"""`import caffe` meaning this package: opt-in, and never instead of an installed Caffe unless told so."""

from __future__ import annotations

import importlib
import importlib.util
import sys

from caffe_fcn.errors import CaffeError

PACKAGE = "caffe_fcn.pycaffe"
MODULES = {  # caffe's module -> where it is here
    "caffe": PACKAGE,
    "caffe.classifier": f"{PACKAGE}.classifier",
    "caffe.coord_map": f"{PACKAGE}.coord_map",
    "caffe.detector": f"{PACKAGE}.detector",
    "caffe.draw": f"{PACKAGE}.draw",
    "caffe.io": f"{PACKAGE}.io",
    "caffe.net_spec": "caffe_fcn.net_spec",
    "caffe.proto": f"{PACKAGE}.proto",
    "caffe.proto.caffe_pb2": "caffe_fcn.formats.caffe_pb2",
    "caffe.pycaffe": f"{PACKAGE}.net",
}


def install(force: bool = False) -> None:
    """Make `import caffe`, and of its modules, give this package, in this process.

    Raises CaffeError if another `caffe` is imported already or could be imported, unless `force`.
    """
    if not force and (found := _other()):
        raise CaffeError(
            f"another caffe is there: {found}", "run the script with it, or install(force=True) hides it"
        )
    for name, target in MODULES.items():
        sys.modules[name] = importlib.import_module(target)


def _other() -> str:
    """Where a caffe that is not ours lies, or ""."""
    present = sys.modules.get("caffe")
    if present is not None:
        return "" if present is sys.modules.get(PACKAGE) else str(getattr(present, "__file__", present))
    spec = importlib.util.find_spec("caffe")
    # A folder without __init__.py, such as a checkout of Caffe's source, has no origin.
    return spec.origin or "" if spec else ""
