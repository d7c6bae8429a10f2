"""Layer types of the user's own: a file with classes like those here (docs/adding-a-layer.md)."""

from __future__ import annotations

import importlib.util
import os
import sys
import traceback
from pathlib import Path

from caffe_fcn.errors import CaffeError
from caffe_fcn.formats.text_reader import EXPECTED
from caffe_fcn.layers.base import LAYERS, Layer

_loaded: dict[Path, list[str]] = {}  # a second time would register its types twice


def load_layers(path: str | os.PathLike[str]) -> list[str]:
    """Run the Python file at `path`, whose subclasses of `Layer` are layer types from then on.

    Returns the names of these types. The field of a layer that a class names in `settings` is read without a
    warning, though no schema knows it; the class finds what it holds in `self.fields`.

    Raises:
        CaffeError: the file is missing, raises something, or has no layer type in it; nothing is registered.
    """
    file = Path(os.path.realpath(path))
    if file in _loaded:
        return _loaded[file]
    if not file.is_file():
        raise CaffeError(f"{path}: no such file", "--layers takes a Python file with layer classes in it")
    before = dict(LAYERS)
    try:
        _run(file)
        made = [name for name in LAYERS if name not in before]
        if not made:
            raise CaffeError(
                f"{path}: has no layer type in it",
                "derive a class from caffe_fcn.layers.Layer; docs/adding-a-layer.md shows one",
            )
    except BaseException:
        LAYERS.clear()
        LAYERS.update(before)
        raise
    EXPECTED.update(LAYERS[name].settings for name in made if LAYERS[name].settings)
    _loaded[file] = made
    return made


def _run(file: Path) -> None:
    name = f"caffe_fcn_layers_{len(_loaded)}_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise CaffeError(f"{file}: is not a Python file", "its name has to end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look a class's module up
    sys.path.insert(0, str(file.parent))  # for what it imports from beside it
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        where = next(
            (f"{f.filename}:{f.lineno}" for f in _frames(error) if f.filename == str(file)), str(file)
        )
        raise CaffeError(f"{where}: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(str(file.parent))


def _frames(error: BaseException) -> list[traceback.FrameSummary]:
    """Innermost first."""
    return traceback.extract_tb(error.__traceback__)[::-1]


__all__ = ["Layer", "load_layers"]
