"""Buffers that a session runs in again and again: nothing is allocated after the first pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from caffe_fcn.runtime.session import Session


class Bound:
    """A session's buffers for inputs of given shapes; made by `Session.bound`.

    Write into `inputs`, call, and use what comes back before the next call overwrites it.

    A CUDA graph reads and writes fixed addresses on the GPU, so for one the buffers lie there, and inputs
    and outputs are copied.
    """

    def __init__(self, session: Session, shapes: Mapping[str, Sequence[int]], graph: int | None) -> None:
        self.inputs = {n: np.zeros(tuple(shape), session.dtype(n)) for n, shape in shapes.items()}
        self._session, self._graph = session, graph
        self._place = ("cpu", 0) if graph is None else (session.device, session.device_id)
        self._binding = session.session.io_binding()
        self._there: dict[str, Any] = {}  # inputs on the GPU
        self._outputs: dict[str, Any] = {}
        for name, array in self.inputs.items():
            self._bind_input(name, array)

    def __call__(self) -> dict[str, np.ndarray]:
        """One pass over what `inputs` hold; the outputs by name."""
        for name, value in self._there.items():
            value.update_inplace(self.inputs[name])
        if self._outputs:
            self._run(self._graph)
        else:
            self._first()
        return {name: value.numpy() for name, value in self._outputs.items()}

    def _run(self, graph: int | None) -> None:
        session = self._session
        with session.turn():
            session.session.run_with_iobinding(self._binding, session.run_options(graph))

    def _first(self) -> None:
        """The first pass: onnxruntime finds out how large the outputs are; they stay where it puts them."""
        names = self._session.outputs
        for name in names:
            self._binding.bind_output(name, *self._place)
        self._run(None)
        self._outputs = dict(zip(names, self._binding.get_outputs(), strict=True))
        for name, value in self._outputs.items():
            self._binding.bind_ortvalue_output(name, value)

    def _bind_input(self, name: str, array: np.ndarray) -> None:
        if self._graph is None:
            self._binding.bind_cpu_input(name, array)
            return
        from onnxruntime import OrtValue

        value = OrtValue.ortvalue_from_shape_and_type(array.shape, array.dtype.type, *self._place)
        self._binding.bind_ortvalue_input(name, value)
        self._there[name] = value
