"""caffe.Net: the net with pycaffe's names and signatures, behind which either engine runs (pycaffe.py)."""

from __future__ import annotations

import os
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np

from caffe_fcn import net as core
from caffe_fcn.blob import Blob
from caffe_fcn.errors import CaffeError, CaffeWarning, UnsupportedError
from caffe_fcn.formats import caffemodel, hdf5
from caffe_fcn.pycaffe.engine import chosen, engine
from caffe_fcn.pycaffe.onnx_engine import OnnxEngine, obstacle


class Net(core.Net):
    """A net as pycaffe has it: Net(network_file, phase), Net(network_file, weights, phase), or by name.

    `blobs` and `params` by name, `layers`, `inputs`, `outputs`, `forward`. A pass over the whole net runs in
    the engine that `set_engine` chose; layers from `start` or up to `end` run in NumPy, which has every blob.

    Raises:
        PrototxtError, LayerError: the net cannot be built; names file, line and layer.
        CaffemodelError: the weights do not fit.
    """

    def __init__(self, network_file: core.Source, *args: Any, **named: Any) -> None:
        if len(args) > 1 and all(isinstance(arg, (int, np.integer)) for arg in args[:2]):
            named.update(zip(("phase", "level", "stages", "weights"), args, strict=False))
            args = ()
        super().__init__(network_file, *args, **named)
        self._onnx: OnnxEngine | None = None
        self._numpy_only = False  # for onnxruntime cannot run it; said once
        self._asked: set[str] = set()  # inner blobs that the caller of `forward` wants
        self._before: list[Callable[[int], Any]] = []
        self._after: list[Callable[[int], Any]] = []

    # --- pycaffe's names

    @property
    def _layer_names(self) -> list[str]:
        return self.layer_names

    @property
    def _blob_names(self) -> list[str]:
        return self.blob_names

    @property
    def _blobs(self) -> list[Blob]:
        return self.blob_list

    @property
    def _blob_loss_weights(self) -> list[float]:
        return [self.blob_loss_weights[name] for name in self.blob_names]

    @property
    def _inputs(self) -> list[int]:
        return [self.blob_names.index(name) for name in self.inputs]

    @property
    def _outputs(self) -> list[int]:
        return [self.blob_names.index(name) for name in self.outputs]

    def _top_ids(self, layer: int) -> list[int]:
        return list(self.top_ids[layer])

    def _bottom_ids(self, layer: int) -> list[int]:
        return list(self.bottom_ids[layer])

    @property
    def top_names(self) -> OrderedDict[str, list[str]]:
        """Layer name -> the blobs that it makes."""
        return self._names(self.top_ids)

    @property
    def bottom_names(self) -> OrderedDict[str, list[str]]:
        """Layer name -> the blobs that it reads."""
        return self._names(self.bottom_ids)

    def _names(self, ids: Sequence[Sequence[int]]) -> OrderedDict[str, list[str]]:
        pairs = zip(self.layer_names, ids, strict=True)
        return OrderedDict((name, [self.blob_names[i] for i in its]) for name, its in pairs)

    # --- running

    def forward(
        self,
        blobs: Sequence[str] | None = None,
        start: str | None = None,
        end: str | None = None,
        **inputs: Any,
    ) -> dict[str, np.ndarray]:
        """Run the net, or its layers from `start` to `end`; see `caffe_fcn.net.Net.forward`."""
        self._asked = set(blobs or ())
        return super().forward(blobs, start, end, **inputs)

    def forward_range(self, start: int, end: int) -> float:
        """Run layers start..end, both included; returns the weighted sum of their losses."""
        whole = start == 0 and end == len(self.layers) - 1
        if whole and not (self._before or self._after) and self._run_onnx():
            weights = {name: w for name, w in self.blob_loss_weights.items() if w}
            return sum(w * float(self.blobs[name].peek().sum()) for name, w in weights.items())
        if not (self._before or self._after):
            return super().forward_range(start, end)
        return sum(self._called(index) for index in range(start, end + 1))

    _forward = forward_range

    def _called(self, index: int) -> float:
        for action in self._before:
            action(index)
        loss = super().forward_range(index, index)
        for action in self._after:
            action(index)
        return loss

    def _run_onnx(self) -> bool:
        """One pass in onnxruntime; False if it is not the engine, or cannot run this net."""
        if engine() != "onnxruntime":
            if chosen.gpu:
                _warn(
                    "set_mode_gpu: the engine 'numpy' runs on the CPU; set_engine('onnxruntime') on the GPU"
                )
            return False
        if self._numpy_only:
            return False
        if self._onnx is None or (self._onnx.gpu, self._onnx.number) != (chosen.gpu, chosen.device):
            self._onnx = OnnxEngine(self, chosen.gpu, chosen.device)
        why = obstacle(self)
        try:
            if not why:
                self._onnx.run(self._asked)
        except UnsupportedError as error:
            why = f"layer '{error.layer}' ({error.type}) {error.problem}"
        self._numpy_only = bool(why)
        if why:
            _warn(f"{self.path}: runs in NumPy, not in onnxruntime: {why}")
        return not why

    def forward_all(self, blobs: Sequence[str] | None = None, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        """Run inputs of any length in batches; the outputs and the `blobs` asked for, put together again."""
        wanted = dict.fromkeys([*self.outputs, *(blobs or ())])
        parts: dict[str, list[np.ndarray]] = {name: [] for name in wanted}
        given = 0
        for batch in self._batch(inputs):
            given += len(next(iter(batch.values())))
            for name, value in self.forward(blobs, None, None, **batch).items():
                parts[name].append(np.atleast_1d(value).copy())
        padding = given - len(next(iter(inputs.values())))
        return {name: np.concatenate(values)[: -padding or None] for name, values in parts.items()}

    def _batch(self, inputs: Mapping[str, Any]) -> Iterator[dict[str, np.ndarray]]:
        """Pieces of the batch size, which is the first blob's; the last is filled up with zeros."""
        if not inputs:
            raise CaffeError("no inputs to take batches of", f"the net's inputs are {self.inputs}")
        arrays = {name: np.asarray(values) for name, values in inputs.items()}
        size = self.blob_list[0].shape[0]
        for start in range(0, len(next(iter(arrays.values()))), size):
            batch = {name: array[start : start + size] for name, array in arrays.items()}
            yield {
                name: np.concatenate([part, np.zeros((size - len(part), *part.shape[1:]))])
                if len(part) < size
                else part
                for name, part in batch.items()
            }

    def before_forward(self, action: Callable[[int], Any]) -> None:
        """Call `action(index of the layer)` before each layer, in NumPy."""
        self._before.append(action)

    def after_forward(self, action: Callable[[int], Any]) -> None:
        """Call `action(index of the layer)` after each layer, in NumPy."""
        self._after.append(action)

    def set_input_arrays(self, data: np.ndarray, labels: np.ndarray) -> None:
        """Let the MemoryData layer, the net's first, read from these float32 arrays: (n, C, H, W) and n."""
        if self.layers[0].type != "MemoryData":
            raise CaffeError(f"{self.path}: set_input_arrays needs a MemoryData layer as the net's first")
        for what, array in (("data", data), ("labels", labels)):
            if array.dtype != np.float32 or not array.flags.c_contiguous:
                raise CaffeError(f"set_input_arrays: the {what} array must be float32 in C order")
        first: Any = self.layers[0]
        first.reset(data, labels)

    _set_input_arrays = set_input_arrays

    # --- parameters

    def share_with(self, other: core.Net) -> None:
        """Use the memory of another net's parameters, layer by name (Net::ShareTrainedLayersWith)."""
        for name, source in other.layer_dict.items():
            target = self.layer_dict.get(name)
            if target is None:
                continue
            shapes = [[blob.shape for blob in layer.blobs] for layer in (source, target)]
            if shapes[0] != shapes[1]:
                told = f"{shapes[0]} and {shapes[1]}"
                raise CaffeError(f"layer '{name}': the nets cannot share parameters of the shapes {told}")
            for own, blob in zip(target.blobs, source.blobs, strict=True):
                own.share(blob.peek())

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the parameters as a .caffemodel."""
        layers = ((layer.name, layer.type, layer.weights) for layer in self.layers)
        caffemodel.write(path, self.name, layers)

    def save_hdf5(self, path: str | os.PathLike[str]) -> None:
        """Write the parameters as a .caffemodel.h5; shared ones once."""
        hdf5.write(path, ((layer.name, layer.type, self._own(layer)) for layer in self.layers))

    def _own(self, layer: Any) -> list[np.ndarray | None]:
        return [None if self.shares(layer, i) else array for i, array in enumerate(layer.weights)]

    def load_hdf5(self, path: str | os.PathLike[str]) -> None:
        """Read what `save_hdf5` wrote."""
        self.copy_from(path)

    def clear_param_diffs(self) -> None:
        """Set the gradients of all parameters to zero."""
        for blobs in self.params.values():
            for blob in blobs:
                blob.clear_diff()

    # --- what is not there

    def backward(self, *_: Any, **__: Any) -> NoReturn:
        """Not there: raises CaffeError."""
        raise CaffeError(f"{self.path}: gradients are not computed here", "training and backward need Caffe")

    _backward = forward_backward_all = before_backward = after_backward = backward


def _warn(message: str) -> None:
    warnings.warn(message, CaffeWarning, stacklevel=2)
