"""The graph of a net as SVG: a box a layer, the layers that work in place on a strip below it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

from caffe_fcn.report.layout import Drawing, Point, place
from caffe_fcn.symbols import Shape, hint
from caffe_fcn.tracing import Row, Trace

LINE, STRIP = 24, 15  # heights of a box and of a strip below it; pixels
LETTER, DIGIT, SMALL = 8.2, 7.5, 6.3  # about what a letter of a name, of a shape, of a strip is wide; pixels
LONG = 2400  # pixels; a higher drawing is printed over several pages
LONGEST = 24  # letters of a name; the rest is left out in the middle

#: What kind a type is of, which gives its colour.
KINDS = {
    "input": "Input Data ImageData HDF5Data DummyData MemoryData WindowData Parameter Python",
    "conv": "Convolution ConvolutionDepthwise ConvolutionDepthWise DepthwiseConvolution "
    "InnerProduct Embed LSTM RNN",
    "up": "Deconvolution Upsample Interp Resize DeephiResize",
    "pool": "Pooling SPP Reduction ROIPooling PSROIPooling",
    "join": "Eltwise Concat Axpy Split",
    "cut": "Crop CropCenter Slice Reshape Flatten Permute Tile Transpose Im2col",
    "norm": "BatchNorm Scale Bias LRN MVN BN Normalize",
    "end": "Softmax ArgMax Accuracy Silence",
}
_KIND = {type_: kind for kind, types in KINDS.items() for type_ in types.split()}


@dataclass
class Node:
    """A box: a layer, and those that work in place on what it makes. Indices of rows."""

    row: int
    inside: list[int] = field(default_factory=list)
    reads: list[int] = field(default_factory=list)  # nodes, in the order of the bottoms
    looks: set[int] = field(default_factory=set)  # nodes of which only the shape is read


def nodes(rows: Sequence[Row]) -> list[Node]:
    """The boxes of a net, in the order of its layers."""
    found: list[Node] = []
    maker: dict[str, int] = {}  # blob -> the node that makes it
    for i, row in enumerate(rows):
        reads = [maker[b] for b in row.bottoms if b in maker]
        if row.in_place and row.bottoms == row.tops and len(row.tops) == 1 and reads:
            found[reads[0]].inside.append(i)
            continue
        node = Node(i, [], list(dict.fromkeys(reads)))
        if row.type == "Crop" and len(reads) == 2 and reads[0] != reads[1]:
            node.looks.add(reads[1])
        found.append(node)
        maker.update(dict.fromkeys(row.tops, len(found) - 1))
    return found


def kind(type_: str) -> str:
    """The kind that a layer type is of: a key of KINDS, "loss", or "other" (pointwise, mostly)."""
    return _KIND.get(type_, "loss" if type_.endswith("Loss") else "other")


def to_svg(trace: Trace) -> str:
    """The drawing. Every layer has `data-row`, and is made a button by the page; shapes have `data-shape`."""
    boxes = nodes(trace.rows)
    sizes = _sizes(trace.rows, boxes)
    edges = [(u, v) for v, node in enumerate(boxes) for u in node.reads]
    drawing = place(sizes, edges, {(u, v) for v, node in enumerate(boxes) for u in node.looks})
    parts = [
        f'<svg id="graph"{" class=long" if drawing.height > LONG else ""} role="group" '
        'aria-label="Graph of the net; arrow keys go from layer to layer" '
        f'width="{drawing.width:.0f}" height="{drawing.height:.0f}" style="--natural: {drawing.width:.0f}px" '
        f'viewBox="0 0 {drawing.width:.0f} {drawing.height:.0f}">',
        '<defs><marker id="tip" viewBox="0 0 6 6" refX="5" refY="3" markerWidth="7" markerHeight="7" '
        'markerUnits="userSpaceOnUse" orient="auto"><path d="M0 0L6 3L0 6z"/></marker></defs>',
        '<g aria-hidden="true">',
        *_paths(boxes, edges, drawing),
        "</g>",
    ]
    for i, node in enumerate(boxes):
        parts.append(_box(trace.rows, node, drawing.boxes[i], sizes[i]))
    return "\n".join([*parts, "</svg>"])


def _sizes(rows: Sequence[Row], boxes: Sequence[Node]) -> list[Point]:
    """All of one width, so that they stand in columns."""
    words = ((len(_short(rows[n.row].name)) * LETTER, len(label(rows[n.row].shapes)) * DIGIT) for n in boxes)
    width = min(max(max(map(sum, words), default=0) + 30, 130), 330)
    return [(width, LINE + (STRIP if node.inside else 0)) for node in boxes]


def _strips(rows: Sequence[Row], node: Node) -> list[float]:
    """How wide the layers that work in place would like to be."""
    return [(len(rows[i].type) + 2) * SMALL for i in node.inside]


def _paths(boxes: Sequence[Node], edges: Sequence[tuple[int, int]], drawing: Drawing) -> list[str]:
    parts = []
    for (u, v), points in zip(edges, drawing.edges, strict=True):
        (x, y), *rest = points
        words = [f"M{x:.0f} {y:.0f}"]
        for i, (a, b) in enumerate(rest):
            if a == x or i % 2:  # down a lane
                words.append(f"L{a:.0f} {b:.0f}")
            else:
                words.append(f"C{x:.0f} {(y + b) / 2:.0f} {a:.0f} {(y + b) / 2:.0f} {a:.0f} {b:.0f}")
            x, y = a, b
        aside = len({px for px, _ in points}) > 1 and len(points) > 2
        css = "edge looks" if u in boxes[v].looks else "edge skip" if aside else "edge"
        ends = f'data-from="{boxes[u].row}" data-to="{boxes[v].row}"'
        parts.append(f'<path class="{css}" {ends} d="{"".join(words)}"/>')
    return parts


def _box(rows: Sequence[Row], node: Node, at: Point, size: Point) -> str:
    (x, y), (width, height), row = at, size, rows[node.row]
    parts = [
        f'<g class="node {kind(row.type)}" transform="translate({x:.0f} {y:.0f})">',
        f'<g {_button(row, node.row)}><rect class="box" width="{width:.0f}" height="{LINE}"/>'
        f'<path class="mark" d="M0 0h5v{LINE}h-5z"/>'
        f'<text class="name" x="12" y="16">{escape(_short(row.name))}</text>{_title(row.name)}'
        f'<text class="shape" x="{width - 8:.0f}" y="16" data-shape="{node.row}">{label(row.shapes)}</text>'
        "</g>",
    ]
    if node.inside:
        wishes, left = _strips(rows, node), 0.0
        for i, wish in zip(node.inside, wishes, strict=True):
            each = wish * width / sum(wishes)
            text = _short(rows[i].type, max(3, int(each / SMALL)))
            parts.append(
                f'<g {_button(rows[i], i)} transform="translate({left:.1f} {LINE})">'
                f'<rect class="strip" width="{each:.1f}" height="{height - LINE}"/>'
                f'<text class="inside" x="{each / 2:.1f}" y="11">{escape(text)}</text></g>'
            )
            left += each
    return "".join([*parts, "</g>"])


def _button(row: Row, index: int) -> str:
    return f'class="layer" data-row="{index}" aria-label="{escape(f"{row.name}, {row.type}")}"'


def label(shapes: Sequence[Shape]) -> str:
    """The first top without its batch: 21×500×500. The page writes the same for other sizes."""
    if not shapes:
        return ""
    more = f" ×{len(shapes)}" if len(shapes) > 1 else ""
    first = shapes[0]
    return "×".join(str(hint(n)) for n in (first[1:] if len(first) > 1 else first)) + more


def _title(name: str) -> str:
    """What a pointer that rests on the box is told: the name, where it is not shown whole."""
    return f"<title>{escape(name)}</title>" if len(name) > LONGEST else ""


def _short(name: str, longest: int = LONGEST) -> str:
    """The name, its middle left out if it is long."""
    if len(name) <= longest:
        return name
    head = (longest - 1) // 2
    return f"{name[:head]}…{name[len(name) - (longest - 1 - head) :]}"
