"""Net: the graph that Caffe builds from a prototxt, and its forward pass (net.cpp)."""

from __future__ import annotations

import math
import os
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from caffe_fcn import fillers, memory
from caffe_fcn.blob import LARGEST, Blob, ReshapedBlob, countable
from caffe_fcn.errors import CaffeError, LayerError, nearest
from caffe_fcn.formats import caffe_pb2
from caffe_fcn.formats.prototxt import Prototxt, read_net
from caffe_fcn.layers import LAYERS, Layer
from caffe_fcn.layers.base import Around
from caffe_fcn.net import notebook
from caffe_fcn.net import weights as weights_
from caffe_fcn.net.filter import takes_part
from caffe_fcn.net.splits import insert_splits
from caffe_fcn.symbols import Shape, fixed
from caffe_fcn.units import bytes_text

TRAIN, TEST = caffe_pb2.TRAIN, caffe_pb2.TEST
MADE_UP = 2**28  # parameters that fillers may make up in a net, 1 GiB; larger nets have a weights file
SEARCHED = 2**20  # layers gone through for what others leave open, as a Crop without an offset does

#: What Net reads a net from: a path, a message, or text already read by `read_net`.
Source: TypeAlias = "str | os.PathLike[str] | Prototxt | Any"


class Net:
    """A net built from a prototxt, as Caffe builds it: same layers, blobs, names, order and shapes.

    Net(prototxt, phase), Net(prototxt, weights, phase), Net(prototxt, phase, weights=...), with `level` and
    `stages` by name. The phase is TEST unless given.

    Raises:
        PrototxtError, LayerError: the net cannot be built; names file, line and layer.
        CaffemodelError: the weights do not fit.
    """

    def __init__(
        self,
        network: Source,
        *args: Any,
        weights: str | os.PathLike | None = None,
        phase: int | None = None,
        level: int = 0,
        stages: Iterable[str] | None = None,
    ) -> None:
        weights, phase = _positional(args, weights, phase)
        text = network if isinstance(network, Prototxt) else read_net(network)
        self.path = text.path
        self.name: str = text.net.name
        self.phase = phase
        state = caffe_pb2.NetState(phase=phase, level=level, stage=stages or [])
        if phase == TEST:  # what the file itself says of its state; a pycaffe user's arguments add to it
            state.stage.extend(s for s in text.net.state.stage if s not in state.stage)
        self.layers: list[Layer] = []
        self.layer_names: list[str] = []
        self.blob_list: list[Blob] = []
        self.blob_names: list[str] = []
        self.bottom_ids: list[list[int]] = []
        self.top_ids: list[list[int]] = []
        self.filled: set[str] = set()  # layers whose parameters came from a file or from surgery
        self.ignored: list[str] = []  # layers of the weights file that the net lacks
        self._made_up = 0  # values of parameters that came from fillers
        self._owners: dict[str, tuple[Layer, int]] = {}  # named parameters
        self.blob_loss_weights: OrderedDict[str, float] = OrderedDict()
        self._build(text, state)
        if weights is not None:
            self.copy_from(weights)

    # --- building

    def _build(self, text: Prototxt, state: Any) -> None:
        pairs = zip(text.net.layer, text.origins, strict=True)
        layers = insert_splits([pair for pair in pairs if takes_part(pair[0], state, pair[1])])
        current: dict[str, int] = {}  # blob name -> its index
        loose: set[str] = set()  # tops that no layer has read yet
        input_ids: list[int] = []
        searched, params = 0, [param for param, _ in layers]
        for param, origin in layers:
            if not param.HasField("phase"):
                param.phase = self.phase
            layer = self._create(param, origin)
            bottoms = [current[name] for name in param.bottom]
            loose.difference_update(param.bottom)
            self._add_automatic_tops(layer)
            tops = [self._top(layer, i, current) for i in range(len(param.top))]
            loose.update(name for name in param.top if name != AUTOMATIC)
            input_ids += tops if param.type == "Input" else []
            self.layers.append(layer)
            self.layer_names.append(param.name)
            self.bottom_ids.append(bottoms)
            self.top_ids.append(tops)
            if layer.unsettled:
                searched += len(layers)
                layer.check(searched <= SEARCHED, "the net is too large to find what this layer leaves open")
                layer.settle(Around(params, self.layers, self.bottom_ids, self.top_ids))
            self._set_up(layer, bottoms, tops)
        self.inputs = [self.blob_names[i] for i in input_ids]
        self.outputs = sorted(loose)
        self.blobs: OrderedDict[str, Blob] = OrderedDict(zip(self.blob_names, self.blob_list, strict=True))
        self.blob_index = {name: i for i, name in enumerate(self.blob_names)}
        self.params: OrderedDict[str, list[Blob]] = OrderedDict(
            (name, layer.blobs)
            for name, layer in zip(self.layer_names, self.layers, strict=True)
            if layer.blobs
        )
        self.layer_dict: OrderedDict[str, Layer] = OrderedDict(
            zip(self.layer_names, self.layers, strict=True)
        )

    def _create(self, param: Any, origin: Any) -> Layer:
        if param.type not in LAYERS:
            hint = (
                nearest(param.type, LAYERS)
                or "give a class for it with --layers FILE (docs/adding-a-layer.md)"
            )
            if param.bottom:
                hint += f"; or stop before it: {' '.join(f'--output {name}' for name in param.bottom)}"
            raise LayerError(str(origin), param.name, param.type, f"unknown layer type '{param.type}'", hint)
        kind = LAYERS[param.type]
        for what, names, range_ in (("bottoms", param.bottom, kind.bottoms), ("tops", param.top, kind.tops)):
            automatic = what == "tops" and kind.role == "loss" and len(names) < range_.start
            if len(names) not in range_ and not automatic:
                wanted = str(range_.start) if len(range_) == 1 else f"{range_.start} or more"
                problem = f"takes {wanted} {what}, got {len(names)}: {', '.join(names) or 'none'}"
                raise LayerError(str(origin), param.name, param.type, problem)
        fields = getattr(origin, "fields", None) or {}
        if (unread := _unread(param.DESCRIPTOR, fields)) is not None:
            problem = f"{unread[0]}: {unread[1]} is none of the values that Caffe knows"
            raise LayerError(str(origin), param.name, param.type, problem)
        return kind(param, origin, fields)

    @staticmethod
    def _add_automatic_tops(layer: Layer) -> None:
        """A loss makes the tops that the prototxt leaves out (AutoTopBlobs)."""
        if layer.role == "loss":
            layer.param.top.extend([AUTOMATIC] * (layer.tops.start - len(layer.param.top)))

    def _top(self, layer: Layer, i: int, current: dict[str, int]) -> int:
        """The index of the blob that top i of a layer is: the bottom's own in place, else a new one."""
        param, name = layer.param, layer.param.top[i]
        if i < len(param.bottom) and name == param.bottom[i]:
            return current[name]
        if name in current and name != AUTOMATIC:
            problem = f"top blob '{name}' is made by two layers, and this one does not work in place"
            raise LayerError(
                str(layer.where), param.name, param.type, problem, "give the tops different names"
            )
        self.blob_list.append(Blob())
        self.blob_names.append(name)
        current[name] = len(self.blob_list) - 1
        return current[name]

    def _set_up(self, layer: Layer, bottoms: list[int], tops: list[int]) -> None:
        """Shapes of parameters and tops (Layer::SetUp, Net::AppendParam)."""
        shapes = [self.blob_list[i].shape for i in bottoms]
        specs = layer.param.param
        wanted = layer.parameters(shapes)
        layer.check(
            len(specs) <= len(wanted), f"has {len(wanted)} parameters, {len(specs)} `param` are given"
        )
        for i, parameter in enumerate(wanted):
            spec = specs[i] if i < len(specs) else caffe_pb2.ParamSpec()
            layer.blobs.append(self._parameter(layer, i, spec, parameter))
        for i, shape in zip(tops, layer.reshape(shapes), strict=True):
            told = f"its top would be {shape}"
            layer.check(min(shape, default=0) >= 0, told)
            layer.check(countable(map(fixed, shape)), f"{told}: more than {LARGEST} elements")
            self.blob_list[i].reshape(*map(fixed, shape))
        for i, filler in zip(tops, layer.initial(), strict=False):
            self.blob_list[i].start(fillers.later(filler))
        weights = list(layer.param.loss_weight) or [1.0] * (layer.role == "loss")
        for n, i in enumerate(tops):
            self.blob_loss_weights[self.blob_names[i]] = weights[n] if n < len(weights) else 0.0

    def _parameter(self, layer: Layer, i: int, spec: Any, wanted: Any) -> Blob:
        """A new parameter, or the one of that name which another layer owns."""
        shape = tuple(wanted.shape)
        if not spec.name or spec.name not in self._owners:
            if spec.name:
                self._owners[spec.name] = (layer, i)
            if wanted.blob is not None:
                return wanted.blob
            told = f"its {wanted.name} would be {shape}"
            layer.check(countable(shape), f"{told}: more than {LARGEST} elements")
            return Blob(shape, self._filling(layer, wanted.filler, told))
        owner, j = self._owners[spec.name]
        own = owner.blobs[j].shape
        told = f"cannot share param '{spec.name}' owned by layer '{owner.name}': it is {own}, here {shape}"
        if spec.share_mode == spec.PERMISSIVE:
            layer.check(np.prod(own) == np.prod(shape), told)
            return owner.blobs[j] if own == shape else ReshapedBlob(owner.blobs[j], shape)
        layer.check(own == shape, told, "share_mode: PERMISSIVE allows another shape of as many elements")
        return owner.blobs[j]

    def _filling(self, layer: Layer, filler: Any, told: str) -> Callable[[tuple[int, ...]], np.ndarray]:
        """What fills a parameter that no file gives, up to a limit: a word of text can claim anything."""
        draw = fillers.later(filler) if filler is not None else lambda shape: np.zeros(shape, np.float32)

        def fill(shape: tuple[int, ...]) -> np.ndarray:
            self._made_up += math.prod(shape)
            problem = f"{told}: with it fillers make up {self._made_up} values, more than {MADE_UP}"
            layer.check(self._made_up <= MADE_UP, problem, "give a weights file")
            return draw(shape)

        return fill

    @property
    def variants(self) -> dict[str, int]:
        """What layers were taken for whose name several forks have, and how many of them."""
        return dict(Counter(layer.variant for layer in self.layers if layer.variant))

    # --- weights

    def copy_from(self, weights: str | os.PathLike | Iterable[Any]) -> None:
        """Load a .caffemodel or .caffemodel.h5, matching layers by name (Net::CopyTrainedLayersFrom)."""
        weights_.copy(self, weights)

    def shares(self, layer: Layer, i: int) -> bool:
        """Whether parameter i of a layer is one that another layer owns."""
        specs = layer.param.param
        name = specs[i].name if i < len(specs) else ""
        return bool(name) and self._owners[name] != (layer, i)

    # --- shapes

    def infer(self, inputs: Mapping[str, Shape], until: int | None = None) -> list[list[Shape]]:
        """Shapes of every layer's tops if the inputs had these shapes; nothing in the net changes.

        Shapes may hold symbols (`caffe_fcn.symbols.Extent`). Inputs not named, and the tops of data layers,
        keep their present shapes. Raises LayerError where a layer cannot take what it would get.
        """
        known: dict[int, Shape] = {}
        result: list[list[Shape]] = []
        for layer, bottoms, tops in list(zip(self.layers, self.bottom_ids, self.top_ids, strict=True))[
            :until
        ]:
            if layer.param.type == "Input" or layer.role == "data":
                names = [self.blob_names[i] for i in tops]
                shapes = [inputs.get(n, self.blob_list[i].shape) for n, i in zip(names, tops, strict=True)]
            else:
                shapes = layer.reshape([known[i] for i in bottoms])
            known.update(zip(tops, shapes, strict=True))
            result.append(list(shapes))
        return result

    def reshape(self) -> None:
        """Recompute every shape from the inputs' (Net::Reshape)."""
        for tops, shapes in zip(self.top_ids, self.infer({}), strict=True):
            for i, shape in zip(tops, shapes, strict=True):
                self.blob_list[i].reshape(*map(fixed, shape))

    # --- running

    def forward_range(self, start: int, end: int) -> float:
        """Run layers start..end, both included; returns the weighted sum of their losses."""
        self.check_memory(start, end)
        loss, index = 0.0, start
        try:
            for index in range(start, end + 1):
                loss += self._run(index)
        except MemoryError as error:
            told = f"there is not enough memory for layer '{self.layer_names[index]}'"
            raise CaffeError(f"{self.path}: {told}", "give smaller inputs") from error
        return loss

    def check_memory(self, start: int = 0, end: int | None = None) -> None:
        """CaffeError if the blobs that the layers start..end make take more memory than there is."""
        tops = {i for tops in self.top_ids[start : None if end is None else end + 1] for i in tops}
        wanted = 4 * sum(self.blob_list[i].count for i in tops if not self.blob_list[i].filled)
        if wanted > memory.MUCH and wanted > (free := memory.free() or wanted):
            told = f"the blobs of a forward pass take {bytes_text(wanted)}, {bytes_text(free)} are free"
            raise CaffeError(f"{self.path}: {told}", "give smaller inputs")

    def _run(self, index: int) -> float:
        layer = self.layers[index]
        if layer.type == "Input":
            return 0.0
        ids = self.bottom_ids[index]
        arrays = [self.blob_list[i].peek() for i in ids]
        made = zip(self.top_ids[index], layer.run(arrays), strict=True)
        tops = [(i, array) for i, array in made if array is not None]
        if layer.shares_data:
            self.blob_list[ids[0]].share(arrays[0])
            for i, array in tops:
                self.blob_list[i].share(array)
        else:
            tops = [(i, _owned(a, [b for j, b in zip(ids, arrays, strict=True) if j != i])) for i, a in tops]
            del arrays  # or the memory of what is computed in place would seem to be in use
            for i, array in tops:
                self.blob_list[i].store(array)
        weights = ((i, self.blob_loss_weights[self.blob_names[i]]) for i in self.top_ids[index])
        return sum(weight * float(self.blob_list[i].peek().sum()) for i, weight in weights if weight)

    def forward(
        self,
        blobs: Sequence[str] | None = None,
        start: str | None = None,
        end: str | None = None,
        **inputs: Any,
    ) -> dict[str, np.ndarray]:
        """Run the net, or the layers from `start` to `end` (names, both included).

        Inputs are given by name, of the shape that their blob has. Returns the outputs (or the last layer's
        tops if `end` is given) and the `blobs` asked for, by name; views, valid until the next pass.
        Raises CaffeError for unknown names and shapes that do not fit (pycaffe's Net.forward).
        """
        first = self._index(start) if start is not None else 0
        last = self._index(end) if end is not None else len(self.layers) - 1
        wanted = [self.blob_names[i] for i in self.top_ids[last]] if end is not None else list(self.outputs)
        if inputs:
            if set(inputs) != set(self.inputs):
                raise CaffeError(
                    f"input arguments {sorted(inputs)} do not match the net's inputs {self.inputs}"
                )
            for name, array in inputs.items():
                self._feed(name, np.asarray(array))
        self.forward_range(first, last)
        for name in blobs or ():
            if name not in self.blobs:
                raise CaffeError(f"no blob '{name}' in the net", nearest(name, self.blobs))
        return {name: self.blobs[name].data for name in dict.fromkeys([*wanted, *(blobs or ())])}

    def _feed(self, name: str, array: np.ndarray) -> None:
        blob = self.blobs[name]
        try:  # as NumPy assigns, but for a batch of one, which is not repeated
            fits = np.broadcast_shapes(array.shape, blob.shape) == blob.shape
        except ValueError:
            fits = False
        if not fits or array.shape[:1] != blob.shape[:1]:
            hint = f"net.blobs['{name}'].reshape{array.shape} first" if array.ndim == len(blob.shape) else ""
            raise CaffeError(f"input '{name}' is {array.shape}, its blob {blob.shape}", hint)
        blob.data[...] = array

    def _repr_html_(self) -> str:
        """What Jupyter shows: a table of the layers."""
        return notebook.table(self)

    def _index(self, name: str) -> int:
        if name not in self.layer_dict:
            raise CaffeError(f"no layer '{name}' in the net", nearest(name, self.layer_names))
        return self.layer_names.index(name)


AUTOMATIC = "(automatic)"


def _unread(descriptor: Any, fields: Mapping[str, Any]) -> tuple[str, Any] | None:
    """A field that the schema has, but whose value it does not know: it was kept beside the message."""
    for name, value in fields.items():
        known = descriptor.fields_by_name.get(name)
        if known is None:
            continue
        if known.message_type is None:
            if name == "engine":  # who computes, not what; forks have engines of their own
                continue
            return name, value
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, dict) and (found := _unread(known.message_type, part)):
                return found
    return None


def _owned(result: np.ndarray, others: Sequence[np.ndarray]) -> np.ndarray:
    """`result` as a float32 array in C order that is no view of other blobs."""
    result = np.ascontiguousarray(result, np.float32).reshape(np.shape(result))
    return result.copy() if any(np.may_share_memory(result, b) for b in others) else result


def _positional(args: tuple[Any, ...], weights: Any, phase: int | None) -> tuple[Any, int]:
    """Pycaffe's two orders: (phase), (weights, phase), (phase, weights)."""
    for arg in args:
        if isinstance(arg, (int, np.integer)) and not isinstance(arg, bool):
            phase = int(arg)
        elif arg is not None:
            weights = arg
    if phase not in (None, TRAIN, TEST):
        raise CaffeError(f"phase {phase} is neither TRAIN ({TRAIN}) nor TEST ({TEST})")
    return weights, TEST if phase is None else phase
