"""Every error that a user can cause. All derive from CaffeError, so one `except` catches them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class CaffeError(Exception):
    """Base of all errors of this package. The command line prints it without a traceback.

    Message: where: what, with both numbers; then, indented, the way out.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message + (f"\n  {hint}" if hint else ""))


class PrototxtError(CaffeError):
    """The text is not a Caffe net: syntax, unknown name, wrong type. Names file:line:column."""


class CaffemodelError(CaffeError):
    """The weights file is damaged, or does not fit the net. Names the file, and the byte or the layer."""


class LayerError(CaffeError):
    """One layer cannot be built: what is wrong, and where."""

    def __init__(self, where: str, layer: str, type_: str, problem: str, hint: str = "") -> None:
        self.where, self.layer, self.type, self.problem, self.hint = where, layer, type_, problem, hint
        super().__init__(f"{where}: layer '{layer}' ({type_}): {problem}", hint)


class UnsupportedError(LayerError):
    """Valid Caffe that we cannot express in the target (ONNX opset, NumPy); never a silent approximation."""


class DeviceError(CaffeError):
    """The device asked for cannot be had."""


class VerifyError(CaffeError):
    """An exported file does not compute what the net computes."""


class CaffeWarning(UserWarning):
    """Something in a file that works, but probably not as its author meant."""


def nearest(name: str, known: Iterable[str]) -> str:
    """'did you mean ...?' with up to three near neighbours of `name`, or ''."""
    near = difflib.get_close_matches(name, list(known), 3)
    return f"did you mean {' or '.join(near)}?" if near else ""
