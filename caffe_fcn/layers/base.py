"""Layer: what every Caffe layer type says about itself. One subclass per type, one place per fact."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, NoReturn, TypeVar

import numpy as np

from caffe_fcn.blob import Blob, BlobVec
from caffe_fcn.errors import LayerError, UnsupportedError
from caffe_fcn.geometry import AxisMap, Window
from caffe_fcn.symbols import Shape, Size, fixed, product

if TYPE_CHECKING:  # the export package imports onnx; a layer only ever receives a builder
    from caffe_fcn.export.builder import Builder, Value
else:
    Builder = Value = Any

__all__ = [
    "LAYERS", "Array", "AxisMap", "Builder", "CoordMap", "Layer", "Parameter", "Sequence", "Shape", "Size",
    "Value", "Window", "fixed", "np", "product",
]  # fmt: skip

TRAIN = 0  # the Phase of the schema; layers do not import protobuf
Array = np.ndarray
LAYERS: dict[str, type[Layer]] = {}
L = TypeVar("L", bound="type[Layer]")

#: What a layer is there for. "data" makes bottoms out of files; "loss" and "metric" judge; the rest computes.
Role = Literal["op", "data", "loss", "metric"]


class Parameter(NamedTuple):
    """One blob of a layer's own: its name in exported files, its shape, and how it starts."""

    name: str
    shape: Shape
    filler: Any = None  # FillerParameter; None: zeros
    blob: Blob | None = None  # the blob itself, where the layer made it already


class CoordMap(NamedTuple):
    """From a layer's bottom to its top: the axis in front of the mapped ones, and a map for each of these."""

    axis: int | None  # None: the same on every axis, as a pointwise layer has it
    maps: Sequence[AxisMap]  # one serves for all axes


class Around(NamedTuple):
    """What a layer can see of its net while that is built."""

    params: Sequence[Any]  # LayerParameters, of the whole net
    layers: Sequence[Layer]  # those there are so far, the one that looks last
    bottom_ids: Sequence[Sequence[int]]  # of each of `layers`, the indices of its blobs
    top_ids: Sequence[Sequence[int]]


class Layer:
    """One layer of a net. The class's name is the prototxt's `type`, as in REGISTER_LAYER_CLASS.

    Subclasses give three readings of one operation: `reshape` (shapes), `forward` (NumPy), `to_onnx`.
    They keep no state between calls: parameters are read from `param`, sizes come in as bottoms.
    """

    bottoms: ClassVar[range] = range(1, 2)  # how many the type accepts
    tops: ClassVar[range] = range(1, 2)
    role: Role = "op"
    fork: ClassVar[str] = ""  # the fork that a type comes from; "" for stock Caffe
    pointwise: ClassVar[bool] = False  # element (h, w) of the top comes from (h, w) of the bottoms alone
    shape_only: ClassVar[frozenset[int]] = (
        frozenset()
    )  # indices of bottoms of which nothing but the shape is read
    settings: ClassVar[str] = ""  # the *_param field of its parameters, if that is not named after the type
    shares_data: ClassVar[bool] = False  # the tops are the bottom's own memory, as Split's and Reshape's
    no_onnx: str = ""  # why a type cannot be lowered at all
    decides: bool = False  # what it gives jumps where its bottoms hardly change: one box or another

    def __init_subclass__(cls, bottoms: int | range | None = None, tops: int | range | None = None) -> None:
        for name, n in (("bottoms", bottoms), ("tops", tops)):
            if n is not None:
                setattr(cls, name, range(n, n + 1) if isinstance(n, int) else n)
        if cls.__name__.startswith("_"):  # a shared base such as _Neuron is not a type
            return
        register(cls.__name__)(cls)

    def __init__(self, param: Any, where: Any = "<net>", fields: dict[str, Any] | None = None) -> None:
        self.param = param  # LayerParameter
        self.where = where  # "file:line" of the layer
        self.fields = fields or {}  # what the prototxt says of this layer beyond the schema
        self.blobs = BlobVec()  # the parameters; the net fills and shares them
        self.setup()

    @property
    def name(self) -> str:
        return self.param.name

    @property
    def type(self) -> str:
        """The type as the prototxt spells it."""
        return str(self.param.type)

    @property
    def training(self) -> bool:
        """Whether the phase is TRAIN."""
        return self.param.phase == TRAIN

    def setup(self) -> None:
        """Check the parameters that need no shapes (Caffe's LayerSetUp)."""

    def parameters(self, bottoms: Sequence[Shape]) -> list[Parameter]:
        """The blobs that this layer learns, given the shapes of its bottoms."""
        return []

    def adapt(self, stored: Sequence[Any]) -> Sequence[Any]:
        """The blobs of a weights file (each with `.data`), in the form that `blobs` has; forks differ."""
        return stored

    def reshape(self, bottoms: Sequence[Shape]) -> list[Shape]:
        """Shapes of the tops, from the shapes of the bottoms."""
        raise NotImplementedError

    def initial(self) -> Sequence[Any]:
        """For each top the FillerParameter of what it holds before the first pass; [] for zeros."""
        return []

    def forward(self, bottoms: Sequence[Array]) -> list[Array]:
        """Values of the tops, float32, from the values of the bottoms; None for a top that stays as it is."""
        raise NotImplementedError

    def run(self, bottoms: Sequence[Array]) -> list[Array]:
        """A net's step in a forward pass: what `reshape` checks has to hold for every new size."""
        self.reshape([array.shape for array in bottoms])
        return self.forward(bottoms)

    def to_onnx(self, g: Builder, bottoms: Sequence[Value]) -> Sequence[str | Value]:
        """Add the nodes that compute this layer to `g`; return the names of its tops.

        A Value instead of a name where the shape depends on what the bottoms hold (`g.found`).
        """
        raise NotImplementedError

    def coord_map(self) -> CoordMap | None:
        """How coordinates go through; None where they do not (coord_map.py)."""
        return CoordMap(None, [AxisMap()]) if self.pointwise else None

    def windows(self, bottoms: Sequence[Shape]) -> list[Window]:
        """The sliding windows over the last axes, for the receptive field; [] where nothing slides."""
        return []

    def macs(self, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> Size:
        """Multiply-accumulates of one forward pass; 0 for what is not a product with weights."""
        return 0

    @property
    def unsettled(self) -> bool:
        """Whether the prototxt leaves open what `settle` finds."""
        return False

    def settle(self, around: Around) -> None:
        """Decide what the prototxt leaves open by what stands around; shapes are not known yet."""

    @property
    def variant(self) -> str:
        """Which layer it was taken for, where forks gave one name to different ones."""
        return ""

    def sample(self, i: int, bottoms: Sequence[Shape], rng: np.random.Generator) -> Array | None:
        """Values that bottom i can hold, to try the layer with; None where any numbers will do."""
        return None

    # --- for subclasses

    @property
    def weights(self) -> list[Array]:
        """The values of `blobs`, to be read."""
        return [blob.peek() for blob in self.blobs]

    def check(self, ok: bool, problem: str, hint: str = "") -> None:
        """Caffe's CHECK: raise LayerError naming file, line, layer and type unless `ok`."""
        if not ok:
            if self.fields and not hint:
                names = ", ".join(_names(self.fields))
                hint = f"it may need what only a fork knows, and this is not read: {names}"
            raise LayerError(str(self.where), self.name, self.param.type, problem, hint)

    def unsupported(self, problem: str, hint: str = "") -> NoReturn:
        """Refuse what is right in Caffe but has no counterpart in the target."""
        raise UnsupportedError(str(self.where), self.name, self.param.type, problem, hint)

    def axis(self, index: int, rank: int) -> int:
        """`index` counted from the front (Blob::CanonicalAxisIndex)."""
        self.check(-rank <= index < rank, f"axis {index} does not exist in a blob of {rank} axes")
        return index % rank

    @staticmethod
    def pair(p: Any, plain: str, h: str = "", w: str = "") -> tuple[int, int]:
        """Caffe's `pad: 1` or `pad_h: 1 pad_w: 2` as (h, w)."""
        h, w = h or f"{plain}_h", w or f"{plain}_w"
        return (getattr(p, h), getattr(p, w)) if p.HasField(h) else (getattr(p, plain),) * 2


def _names(fields: dict[str, Any], above: str = "") -> list[str]:
    """The fields of a nested dict as `outer.inner`."""
    return [
        name
        for key, value in fields.items()
        for name in (_names(value, f"{above}{key}.") if isinstance(value, dict) else [above + key])
    ]


def register(*names: str) -> Callable[[L], L]:
    """Register a layer class under one or more type names (its own name is registered by itself)."""

    def add(cls: L) -> L:
        for name in names:
            if name in LAYERS and LAYERS[name] is not cls:
                raise TypeError(f"layer type {name} is registered twice")
            LAYERS[name] = cls
        return cls

    return add
