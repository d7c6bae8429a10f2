"""Python: a layer that the user wrote as a class. Semantics: include/caffe/layers/python_layer.hpp."""

from __future__ import annotations

import importlib.util
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import ModuleType
from typing import Any

from caffe_fcn.blob import Blob, BlobVec
from caffe_fcn.errors import LayerError
from caffe_fcn.layers import base
from caffe_fcn.layers.base import Array, Layer, Sequence, Shape, fixed


class PythonLayer:
    """What `caffe.Layer` is: the base of users' layers, which give it setup, reshape and forward.

    Each gets the lists of bottom and top blobs. `blobs` holds the parameters (`blobs.add_blob(*shape)`);
    `param_str` and `phase` are what the prototxt and the net say.
    """

    type = "Python"
    param_str: str
    phase: int

    def __init__(self, param: Any = None) -> None:
        self._param = param
        self.blobs = BlobVec()

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Read `param_str`, add parameters; once, when the net is built."""

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Give the tops their shapes; before each pass."""
        raise NotImplementedError("a Python layer needs reshape(self, bottom, top)")

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Write the tops' `data`."""
        raise NotImplementedError("a Python layer needs forward(self, bottom, top)")

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        """Never called: gradients are not computed here."""


#: Layers of published nets, computed here where their module is not there: (module, class) -> ours.
PUBLISHED: dict[tuple[str, str], type[Layer]] = {}


class PythonLayerError(LayerError, RuntimeError):
    """The code of a Python layer failed; says where in its file."""


class Python(Layer, bottoms=range(1 << 31), tops=range(1 << 31)):
    """The class `python_param.layer` of the module `python_param.module`, a `caffe.Layer`.

    Bottoms and tops: any; the tops are what the class makes of them in `reshape(bottom, top)`. The module is
    searched for on sys.path, in the working directory and beside the prototxt. Without bottoms it is a source
    of data. Like the user's own class, and unlike the other layers, it has a state: the blobs that it shows
    to that class.
    """

    no_onnx = "runs code of its own; cut the net before it: --output BLOB"

    def __new__(cls, param: Any, where: Any = "<net>", fields: dict[str, Any] | None = None) -> Any:
        """One of PUBLISHED in its place, if the module is not to be found."""
        p = param.python_param
        ours = PUBLISHED.get((p.module, p.layer))
        if ours is None:
            return super().__new__(cls)
        with _importable([os.getcwd(), _folder(where)]), suppress(ImportError, ValueError):
            if p.module in sys.modules or importlib.util.find_spec(p.module):
                return super().__new__(cls)
        return ours(param, where, fields)

    def setup(self) -> None:
        bottoms = " ".join(f"--output {name}" for name in self.param.bottom)
        if bottoms:
            self.no_onnx = f"runs code of its own; cut the net before it: {bottoms}"
        else:
            self.role, self.no_onnx = "data", "makes data; `caffe-fcn deploy` puts an Input in its place"
        self._user: PythonLayer | None = None
        self._bottom: list[Blob] = []
        self._top: list[Blob] = []

    def __getattr__(self, name: str) -> Any:
        """What this class lacks: pycaffe's `net.layers[i]` is the user's object."""
        user = self.__dict__.get("_user")
        if user is None or name.startswith("__"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(user, name)

    def __setattr__(self, name: str, value: Any) -> None:
        user = self.__dict__.get("_user")
        theirs = user is not None and name in vars(user) and name not in self.__dict__
        object.__setattr__(user if theirs else self, name, value)

    @property
    def user(self) -> PythonLayer:
        """The object of the user's class."""
        if self._user is None:
            self._user = self._create()
        return self._user

    def parameters(self, bottoms: Sequence[Shape]) -> list[base.Parameter]:
        bottom, top = self.param.bottom, self.param.top
        self._bottom = [Blob(tuple(fixed(n) for n in shape)) for shape in bottoms]
        # In place the user sees one blob twice, as in Caffe.
        self._top = [
            self._bottom[i] if i < len(bottom) and name == bottom[i] else Blob() for i, name in enumerate(top)
        ]
        self._call("setup")
        made = list(self.blobs)
        self.blobs.clear()  # the net puts them back, or those of another layer that it shares
        return [base.Parameter(f"param_{i}", blob.shape, blob=blob) for i, blob in enumerate(made)]

    def reshape(self, bottoms: Sequence[Shape]) -> list[Shape]:
        for blob, shape in zip(self._bottom, bottoms, strict=True):
            blob.reshape(*(fixed(n) for n in shape))
        self._call("reshape")
        return [blob.shape for blob in self._top]

    def run(self, bottoms: Sequence[Array]) -> list[Array]:
        return self.forward(bottoms)  # which lets the user's reshape see the values, as Caffe does

    def forward(self, bottoms: Sequence[Array]) -> list[Array]:
        for blob, array in zip(self._bottom, bottoms, strict=True):
            blob.share(array)
        self._call("reshape")
        self._call("forward")
        return [blob.peek() for blob in self._top]

    # --- the user's class

    def _create(self) -> PythonLayer:
        p = self.param.python_param
        module = self._module(p.module)
        file = getattr(module, "__file__", p.module)
        self.check(hasattr(module, p.layer), f"there is no class '{p.layer}' in {file}")
        kind: Any = getattr(module, p.layer)
        derived = isinstance(kind, type) and issubclass(kind, PythonLayer)
        self.check(derived, f"'{p.layer}' in {file} is not derived from caffe.Layer of caffe_fcn.pycaffe")
        user: PythonLayer = self._guarded(f"{p.layer}()", lambda: kind(self.param))
        user.param_str, user.phase, user.blobs = p.param_str, self.param.phase, self.blobs
        return user

    def _module(self, name: str) -> ModuleType:
        with _importable([os.getcwd(), _folder(self.where)]):
            return self._guarded(f"import {name}", lambda: importlib.import_module(name))

    def _call(self, method: str) -> None:
        action = getattr(self.user, method)
        self._guarded(f"{type(self.user).__name__}.{method}", lambda: action(self._bottom, self._top))

    def _guarded(self, what: str, action: Callable[[], Any]) -> Any:
        """The result of user code; what it raises becomes an error that names its file and line."""
        try:
            return action()
        except Exception as error:
            frames = traceback.extract_tb(error.__traceback__)
            last = next((f for f in reversed(frames) if not f.filename.startswith("<frozen")), frames[-1])
            text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            problem = f"{what} raised {text} ({last.filename}:{last.lineno})"
            hint = self._hint(error)
            raise PythonLayerError(str(self.where), self.name, self.param.type, problem, hint) from error

    def _hint(self, error: Exception) -> str:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing == "caffe":
            return "`python -m caffe_fcn.pycaffe SCRIPT`, or caffe_fcn.pycaffe.install(), provides caffe"
        if missing and f"{self.param.python_param.module}.".startswith(f"{missing}."):
            return f"put its folder on PYTHONPATH; for ONNX it {self.no_onnx}"
        return ""


def _folder(where: Any) -> str:
    """Where the prototxt lies."""
    return os.path.dirname(os.path.abspath(getattr(where, "path", "")))


@contextmanager
def _importable(folders: Sequence[str]) -> Iterator[None]:
    """Let modules be found in these folders too, after those of sys.path."""
    added = [folder for folder in folders if folder not in sys.path]
    sys.path.extend(added)
    try:
        yield
    finally:
        for folder in added:
            sys.path.remove(folder)
