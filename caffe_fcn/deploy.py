"""A train/val net cut down to the net that is deployed: data layers become Inputs, labels and losses go.

What a layer is there for, its class says (`Layer.role`). A blob that a loss or metric reads is a prediction
if something was learned on the way to it, else a label.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from caffe_fcn.errors import CaffeError, LayerError
from caffe_fcn.formats import caffe_pb2
from caffe_fcn.formats.prototxt import Origin, Prototxt
from caffe_fcn.layers import LAYERS, Layer
from caffe_fcn.net.filter import takes_part
from caffe_fcn.symbols import fixed

Pair = tuple[Any, Origin]  # LayerParameter, where it stands


@dataclass
class Deploy:
    """A deploy net, and what was read from the data layers that it replaces."""

    text: Prototxt
    outputs: list[str] = field(default_factory=list)  # [] if nothing was cut: the net's own
    dropped: list[str] = field(default_factory=list)
    transform: Any = None  # TransformationParameter of the data layer that became the first Input


def to_deploy(text: Prototxt, shapes: Mapping[str, Sequence[int]] | None = None) -> Deploy:
    """The deploy net of a train/val net; any other net comes back as it is.

    Args:
        shapes: of inputs by blob name, for data layers that do not tell theirs.

    Raises:
        LayerError: the shape of a data layer or Input is told neither by the file nor by `shapes`.
    """
    text = _with_shapes(text, shapes or {})
    layers = _layers_with_data(text)
    if layers is None:
        return Deploy(text)
    kept = [pair for pair in layers if _role(pair) == "op" and pair[0].type != "Silence"]
    data = {top: pair for pair in layers if _role(pair) == "data" for top in pair[0].top}
    learned = _learned(layers)
    judged = [
        b for p, _ in layers if _role((p, None)) in ("loss", "metric") for b in p.bottom if b in learned
    ]
    read = {b for p, _ in kept for b in p.bottom if b not in p.top}
    outputs = [b for b in dict.fromkeys([*_loose(kept), *judged]) if b in learned and b not in read]
    kept = _on_the_way(kept, outputs)
    used = {b for p, _ in kept for b in p.bottom}
    inputs = [_input(top, pair, shapes or {}) for top, pair in data.items() if top in used]
    names = {param.name for param, _ in [*inputs, *kept]}
    dropped = [p.name for p, _ in layers if p.name not in names and p.name not in data]
    first = next((pair[0].transform_param for top, pair in data.items() if top in used), None)
    return Deploy(_text_of([*inputs, *kept], text), outputs, dropped, first)


def _with_shapes(text: Prototxt, shapes: Mapping[str, Sequence[int]]) -> Prototxt:
    """The same net with `shapes` for those Inputs that have none, as `input:` without dims makes them."""
    bare = [
        i for i, layer in enumerate(text.net.layer) if layer.type == "Input" and not layer.input_param.shape
    ]
    if not bare:
        return text
    net = caffe_pb2.NetParameter()
    net.CopyFrom(text.net)
    for layer, origin in ((net.layer[i], text.origins[i]) for i in bare):
        for top in layer.top:
            if top not in shapes:
                raise _shapeless(top, layer, origin)
            layer.input_param.shape.add(dim=shapes[top])
    return Prototxt(net, text.origins, text.path)


def pruned(cut: Deploy, outputs: Sequence[str] = ()) -> Deploy:
    """The same net without the layers that no output depends on, before any of them is built.

    A layer that we do not know, or that cannot run here, does no harm beside the way. `outputs` are blobs to
    stop at; by default the net's own.
    """
    layers = _of_phase(cut.text, caffe_pb2.TEST)
    made = {top for param, _ in layers for top in param.top}
    wanted = list(outputs or cut.outputs) or _loose(layers) or _silenced(layers)
    if not made.issuperset(wanted):  # the net says so itself, once it is built
        return cut
    kept = _on_the_way(layers, wanted)
    stays = {id(param) for param, _ in kept}
    dropped = [param.name for param, _ in layers if id(param) not in stays]
    if not dropped:
        return cut
    return Deploy(_text_of(kept, cut.text), cut.outputs, [*cut.dropped, *dropped], cut.transform)


def _of_phase(text: Prototxt, phase: int) -> list[Pair]:
    """The layers that take part in a phase, at the level and in the stages that the file names."""
    state = caffe_pb2.NetState(phase=phase, level=text.net.state.level, stage=text.net.state.stage)
    pairs = zip(text.net.layer, text.origins, strict=True)
    return [(param, origin) for param, origin in pairs if takes_part(param, state, origin)]


def _text_of(layers: Sequence[Pair], text: Prototxt) -> Prototxt:
    """A net of these layers that is otherwise like `text`."""
    net = caffe_pb2.NetParameter()
    net.CopyFrom(text.net)
    del net.layer[:]
    net.layer.extend(param for param, _ in layers)
    return Prototxt(net, [origin for _, origin in layers], text.path)


def _role(pair: tuple[Any, Any]) -> str:
    """A Python layer without bottoms is a source of data, whatever it is called."""
    param = pair[0]
    if param.type == "Python" and not param.bottom:
        return "data"
    return LAYERS.get(param.type, Layer).role


def _layers_with_data(text: Prototxt) -> list[Pair] | None:
    """The layers of the phase that a deploy net is cut from; None if the net is one as it stands.

    That is TEST if it has data layers, and TRAIN if TEST has neither data layers nor what else to start from.
    """
    for phase in (caffe_pb2.TEST, caffe_pb2.TRAIN):
        layers = _of_phase(text, phase)
        if any(_role(pair) == "data" for pair in layers):
            return [(_without_rules(param), origin) for param, origin in layers]
        made: set[str] = set()
        for param, _ in layers:
            if not made.issuperset(param.bottom):
                break
            made.update(param.top)
        else:
            return None
    return None


def _without_rules(param: Any) -> Any:
    copy = type(param)()
    copy.CopyFrom(param)
    for name in ("include", "exclude", "phase"):
        copy.ClearField(name)
    return copy


def _learned(layers: Sequence[Pair]) -> set[str]:
    """Blobs that depend on a layer with parameters (or on a type that we do not know)."""
    learned: set[str] = set()
    for param, _ in layers:
        kind = LAYERS.get(param.type)
        own = kind is None or (kind.role == "op" and kind.parameters is not Layer.parameters)
        own = own and _role((param, None)) != "data"
        if own or learned.intersection(param.bottom):
            learned.update(param.top)
    return learned


def _loose(layers: Sequence[Pair]) -> list[str]:
    """Tops that nobody reads, in order."""
    loose: dict[str, None] = {}
    for param, _ in layers:
        for bottom in param.bottom:
            loose.pop(bottom, None)
        loose.update(dict.fromkeys(param.top))
    return list(loose)


def _silenced(layers: Sequence[Pair]) -> list[str]:
    """What Silence reads, and what a net without outputs is for, as that of Colorful Image Colorization."""
    return [bottom for param, _ in layers if param.type == "Silence" for bottom in param.bottom]


def _on_the_way(layers: Sequence[Pair], outputs: Sequence[str]) -> list[Pair]:
    wanted, kept = set(outputs), []
    for pair in reversed(layers):
        if wanted.intersection(pair[0].top):
            wanted.update(pair[0].bottom)
            kept.append(pair)
    return kept[::-1]


def _input(top: str, pair: Pair, shapes: Mapping[str, Sequence[int]]) -> Pair:
    param, origin = pair
    index = list(param.top).index(top)
    shape = shapes.get(top) or data_shape(param, index) or _stored_shape(param, index)
    if shape is None:
        raise _shapeless(top, param, origin)
    layer = caffe_pb2.LayerParameter(name=top, type="Input", top=[top])
    layer.input_param.shape.add(dim=shape)
    return layer, origin


def _shapeless(top: str, param: Any, origin: Origin) -> LayerError:
    """What to say if nobody tells the shape of an input."""
    dims = "1,CHANNELS or 1,CHANNELS,HEIGHT,WIDTH" if param.type == "HDF5Data" else "1,3,HEIGHT,WIDTH"
    problem = f"does not tell the shape of '{top}'"
    return LayerError(str(origin), param.name, param.type, problem, f"give it: --input-shape {top}:{dims}")


def _stored_shape(param: Any, index: int) -> list[int] | None:
    """What the database or the files say, if they are here; one item, whatever the batch size."""
    if param.type not in ("Data", "HDF5Data", "ImageData"):
        return None
    try:
        return [1, *map(fixed, LAYERS[param.type](param).reshape([])[index][1:])]
    except CaffeError:
        return None


def data_shape(param: Any, index: int) -> list[int] | None:
    """The shape of a data layer's top as far as the prototxt tells it; one image, whatever the batch size."""
    if param.type == "DummyData":
        p = param.dummy_data_param
        if p.shape:
            return list(p.shape[min(index, len(p.shape) - 1)].dim)
        axes = [list(a) for a in (p.num, p.channels, p.height, p.width)]
        return [a[min(index, len(a) - 1)] for a in axes] if all(axes) else None
    if param.type == "MemoryData":
        m = param.memory_data_param
        return [1, m.channels, m.height, m.width]
    images = param.type in ("Data", "ImageData", "WindowData") or LAYERS[param.type].fork
    size = next((size for size in _image_sizes(param) if all(size)), None)
    if index or not images or size is None:
        return None
    gray = param.transform_param.force_gray or not param.image_data_param.is_color
    return [1, 1 if gray or not param.dense_image_data_param.is_color else 3, *size]


def _image_sizes(param: Any) -> Iterator[tuple[int, int]]:
    """(height, width) as a data layer may tell it, the last step of its work first; 0 where it does not."""
    t, dense = param.transform_param, param.dense_image_data_param
    crop = t.crop_size or param.window_data_param.crop_size or param.video_data_param.crop_size
    yield crop, crop
    yield t.crop_h, t.crop_w
    yield t.crop_height, t.crop_width
    yield t.resize_param.height, t.resize_param.width
    yield dense.crop_height, dense.crop_width
    for p in (param.image_data_param, dense, param.video_data_param):
        yield p.new_height, p.new_width
