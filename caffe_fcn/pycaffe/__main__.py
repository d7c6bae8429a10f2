"""`python -m caffe_fcn.pycaffe script.py ARGS`: run a script with `import caffe` meaning this package."""

from __future__ import annotations

import argparse
import os
import runpy
import sys

from caffe_fcn.errors import CaffeError
from caffe_fcn.pycaffe import set_engine
from caffe_fcn.pycaffe.engine import ENGINES, pin
from caffe_fcn.pycaffe.shim import install


def main() -> None:
    """Run what the command line names, as Python itself would."""
    what = "Run a script with `import caffe` meaning caffe_fcn.pycaffe."
    parser = argparse.ArgumentParser("python -m caffe_fcn.pycaffe", description=what)
    parser.add_argument("--engine", choices=ENGINES, help="what runs nets; numpy unless given")
    parser.add_argument("--device", choices=("cpu", "gpu"), help="for onnxruntime, whatever the script says")
    parser.add_argument("--force", action="store_true", help="hide a Caffe that is installed")
    parser.add_argument("-m", dest="module", action="store_true", help="SCRIPT is the name of a module")
    parser.add_argument("script", metavar="SCRIPT")
    parser.add_argument("args", nargs=argparse.REMAINDER, metavar="...", help="the script's own")
    given = parser.parse_args()
    folder = os.getcwd() if given.module else os.path.dirname(os.path.realpath(given.script))
    sys.path[0] = folder
    try:
        install(given.force)
    except CaffeError as error:
        parser.exit(1, f"{parser.prog}: {error}\n")
    if given.engine:
        set_engine(given.engine)
    if given.device:
        pin(given.device)
    sys.argv = [given.script, *given.args]
    if given.module:
        runpy.run_module(given.script, run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(given.script, run_name="__main__")


if __name__ == "__main__":
    main()
