"""Layers that only move elements, or leave some out."""

from __future__ import annotations

from caffe_fcn.layers.base import (
    Array,
    AxisMap,
    Builder,
    CoordMap,
    Layer,
    Sequence,
    Shape,
    Size,
    Value,
    fixed,
    np,
)  # fmt: skip
from caffe_fcn.layers.crop import CROP

LAST = np.iinfo(np.int64).min  # behind the first element, for a slice that runs backwards in ONNX


class _Reordered(Layer):
    """The bottom's axes in another order."""

    def _order(self, rank: int) -> list[int]:
        raise NotImplementedError

    def reshape(self, bottoms: Sequence[Shape]) -> list[Shape]:
        return [tuple(bottoms[0][i] for i in self._order(len(bottoms[0])))]

    def forward(self, bottoms: Sequence[Array]) -> list[Array]:
        return [bottoms[0].transpose(self._order(bottoms[0].ndim))]

    def to_onnx(self, g: Builder, bottoms: Sequence[Value]) -> list[str]:
        order = self._order(len(bottoms[0].shape))
        if order == sorted(order):
            return [bottoms[0].name]
        return [g.op("Transpose", bottoms[0], perm=order)]


class Permute(_Reordered):
    """Put the axes in the order `order`; those it leaves out follow as they stood.

    Bottom: any shape. Top: its axes reordered (permute_layer.cpp of SSD).
    """

    fork = "SSD"

    def _order(self, rank: int) -> list[int]:
        told = list(self.param.permute_param.order)
        self.check(all(i < rank for i in told), f"order {told} names axes that a blob of {rank} axes lacks")
        self.check(len(set(told)) == len(told), f"order {told} names an axis twice")
        return [*told, *(i for i in range(rank) if i not in told)]


class Transpose(_Reordered):
    """Put the axes in the order `dim`, which names all.

    Bottom: any shape. Top: its axes reordered (transpose_layer.cpp of WarpCTC-Caffe and CTPN).
    """

    fork = "WarpCTC-Caffe, CTPN"

    def _order(self, rank: int) -> list[int]:
        told = list(self.param.transpose_param.dim)
        self.check(sorted(told) == list(range(rank)), f"dim {told} is no order of {rank} axes")
        return told


class _Backwards(Layer):
    """Some of the bottom's axes from the last element to the first."""

    def _axes(self, rank: int) -> list[int]:
        raise NotImplementedError

    def reshape(self, bottoms: Sequence[Shape]) -> list[Shape]:
        self._axes(len(bottoms[0]))
        return [bottoms[0]]

    def forward(self, bottoms: Sequence[Array]) -> list[Array]:
        return [np.flip(bottoms[0], tuple(self._axes(bottoms[0].ndim)))]

    def to_onnx(self, g: Builder, bottoms: Sequence[Value]) -> list[str]:
        axes = self._axes(len(bottoms[0].shape))
        if not axes:
            return [bottoms[0].name]
        each = len(axes)
        bounds = [g.ints(values) for values in ([-1] * each, [LAST] * each, axes, [-1] * each)]
        return [g.op("Slice", bottoms[0], *bounds)]


class Reverse(_Backwards):
    """Turn `axis` (default 0) around. Bottom: any shape. Top: the same (reverse_layer.cpp of CTPN)."""

    fork = "WarpCTC-Caffe, CTPN"

    def _axes(self, rank: int) -> list[int]:
        axis = self.param.reverse_param.axis
        self.check(0 <= axis < rank, f"axis {axis} does not exist in a blob of {rank} axes")
        return [axis]


class Flip(_Backwards):
    """Mirror images: left and right (`flip_width`, on unless said), top and bottom (`flip_height`).

    Bottom: (N, C, H, W). Top: the same (flip_layer.cpp of caffe-windows).
    """

    fork = "caffe-windows"

    def setup(self) -> None:
        beyond = sorted(self.fields.get("flip_param", {}))
        self.check(not beyond, f"flip_param of another fork: {', '.join(beyond)} is not known here")

    def _axes(self, rank: int) -> list[int]:
        p = self.param.flip_param
        self.check(rank == 4, f"needs 4 axes (N, C, H, W), got {rank}")
        return [*([2] if p.flip_height else []), *([3] if p.flip_width else [])]


class ShuffleChannel(Layer):
    """Deal the channels of `group` groups out in turn: the first of each group, then the second of each ...

    Bottom: (N, C, ...), C a multiple of group. Top: the same (shuffle_channel_layer.cpp of ShuffleNet).
    """

    fork = "ShuffleNet"
    pointwise = True

    def reshape(self, bottoms: Sequence[Shape]) -> list[Shape]:
        (bottom,), group = bottoms, self.param.shuffle_channel_param.group
        self.check(group > 0, f"group {group} must be positive")
        self.check(len(bottom) >= 2, f"needs at least 2 axes (N, C), got {bottom}")
        self.check(bottom[1] % group == 0, f"group {group} does not divide channels {bottom[1]}")
        return [bottom]

    def _dealt(self, channels: int) -> Array:
        """Which channel comes to which place."""
        group = self.param.shuffle_channel_param.group
        return np.arange(channels).reshape(group, channels // group).T.reshape(-1)

    def forward(self, bottoms: Sequence[Array]) -> list[Array]:
        return [bottoms[0][:, self._dealt(bottoms[0].shape[1])]]

    def to_onnx(self, g: Builder, bottoms: Sequence[Value]) -> list[str]:
        (bottom,) = bottoms
        return [g.op("Gather", bottom, g.array(self._dealt(fixed(bottom.shape[1]))), axis=1)]


class _Blocks(Layer):
    """Blocks of stride x stride pixels against channels."""

    def _settings(self) -> tuple[int, bool]:
        """Stride and reverse."""
        raise NotImplementedError

    def setup(self) -> None:
        stride, _ = self._settings()
        self.check(stride > 0, f"stride {stride} must be positive")

    def reshape(self, bottoms: Sequence[Shape]) -> list[Shape]:
        (bottom,), (s, reverse) = bottoms, self._settings()
        self.check(len(bottom) == 4, f"needs 4 axes (N, C, H, W), got {bottom}")
        n, c, h, w = bottom
        if reverse:
            self.check(c % (s * s) == 0, f"stride {s}: its square does not divide channels {c}")
            return [(n, c // (s * s), h * s, w * s)]
        self.check(h % s == 0 and w % s == 0, f"stride {s} does not divide the image {h} x {w}")
        return [(n, c * s * s, h // s, w // s)]


class GSTiling(_Blocks):
    """Pixels of each stride x stride block as channels, the block's positions outermost; `reverse`: back.

    Bottom: (N, C, H, W). Top: (N, C * s * s, H / s, W / s) (gs_tiling_layer.cpp of caffe-xilinx).
    """

    fork = "caffe-xilinx"

    def _settings(self) -> tuple[int, bool]:
        p = self.param.gs_tiling_param
        return p.stride, p.reverse

    def forward(self, bottoms: Sequence[Array]) -> list[Array]:
        stride, reverse = self._settings()
        return [to_pixels(bottoms[0], stride) if reverse else to_channels(bottoms[0], stride)]

    def to_onnx(self, g: Builder, bottoms: Sequence[Value]) -> list[str]:
        stride, reverse = self._settings()
        return [g.op("DepthToSpace" if reverse else "SpaceToDepth", bottoms[0], blocksize=stride)]


class Reorg(_Blocks):
    """YOLO's passage from large maps to small ones; `reverse`: back.

    Bottom: (N, C, H, W). Top: (N, C * s * s, H / s, W / s), s the `stride`. The elements are dealt out as if
    the bottom's memory were C / (s * s) channels of s * H x s * W pixels (reorg_layer.cpp of MobileNet-YOLO
    and Intel Caffe).
    """

    fork = "MobileNet-YOLO, Intel Caffe, caffe-xilinx"

    def _settings(self) -> tuple[int, bool]:
        p = self.param.reorg_param
        return p.stride, p.reverse

    def reshape(self, bottoms: Sequence[Shape]) -> list[Shape]:
        tops, (s, _) = super().reshape(bottoms), self._settings()
        channels = bottoms[0][1]
        self.check(channels % (s * s) == 0, f"stride {s}: its square does not divide channels {channels}")
        return tops

    def forward(self, bottoms: Sequence[Array]) -> list[Array]:
        (x,), (stride, reverse) = bottoms, self._settings()
        top = [int(n) for n in self.reshape([x.shape])[0]]
        if reverse:
            return [to_pixels(x, stride).reshape(top)]
        return [to_channels(x.reshape([int(n) for n in self._read(x.shape)]), stride).reshape(top)]

    def _read(self, bottom: Shape) -> Shape:
        (n, c, h, w), (s, _) = bottom, self._settings()
        return (n, c // (s * s), h * s, w * s)

    def to_onnx(self, g: Builder, bottoms: Sequence[Value]) -> list[str]:
        (x,), (stride, reverse) = bottoms, self._settings()
        if reverse:
            return [g.op("DepthToSpace", x, blocksize=stride)]
        blocks = g.op("SpaceToDepth", g.reshape(x, self._read(x.shape)), blocksize=stride)
        return [g.reshape(blocks, self.reshape([x.shape])[0])]


def to_channels(x: Array, s: int) -> Array:
    """(N, C, H, W) -> (N, s * s * C, H / s, W / s)."""
    n, c, h, w = x.shape
    blocks = x.reshape(n, c, h // s, s, w // s, s).transpose(0, 3, 5, 1, 2, 4)
    return blocks.reshape(n, s * s * c, h // s, w // s)


def to_pixels(x: Array, s: int) -> Array:
    """(N, s * s * C, H, W) -> (N, C, s * H, s * W)."""
    n, c, h, w = x.shape
    blocks = x.reshape(n, s, s, c // (s * s), h, w).transpose(0, 3, 4, 1, 5, 2)
    return blocks.reshape(n, c // (s * s), s * h, s * w)


class AutoCrop(CROP, bottoms=2):
    """Crop that begins where the layers say.

    Bottoms: (N, C, H, W); reference. Top: H and W of the reference (auto_crop_layer.cpp of RCF's Caffe).
    """

    fork = "RCF"


class CropCenter(Layer):
    """Cut `crop_size` elements off both ends of every axis, one number for each.

    Bottom: any shape. Top: what is left (crop_center_layer.cpp of waifu2x-caffe).
    """

    fork = "waifu2x-caffe"

    def _ends(self, bottom: Shape) -> list[int]:
        ends = list(self.param.crop_center_param.crop_size)
        self.check(
            len(ends) == len(bottom),
            f"{len(ends)} crop_size for the {len(bottom)} axes of {bottom}",
            "give one for each axis: crop_size: [0, 0, 1, 1]",
        )
        return ends

    def reshape(self, bottoms: Sequence[Shape]) -> list[Shape]:
        (bottom,) = bottoms
        top: list[Size] = []
        for axis, (n, cut) in enumerate(zip(bottom, self._ends(bottom), strict=True)):
            self.check(n > 2 * cut, f"axis {axis}: crop_size {cut} on both ends leaves nothing of {n}")
            top.append(n - 2 * cut)
        return [tuple(top)]

    def forward(self, bottoms: Sequence[Array]) -> list[Array]:
        (bottom,) = bottoms
        return [
            bottom[
                tuple(
                    slice(cut, n - cut) for n, cut in zip(bottom.shape, self._ends(bottom.shape), strict=True)
                )
            ]
        ]

    def to_onnx(self, g: Builder, bottoms: Sequence[Value]) -> list[str]:
        (bottom,) = bottoms
        cuts = [(i, cut) for i, cut in enumerate(self._ends(bottom.shape)) if cut]
        if not cuts:
            return [bottom.name]
        axes, starts = zip(*cuts, strict=True)
        return [g.op("Slice", bottom, g.ints(starts), g.ints([-cut for cut in starts]), g.ints(axes))]

    def coord_map(self) -> CoordMap | None:
        cuts = list(self.param.crop_center_param.crop_size)
        return (
            CoordMap(1, [AxisMap(shift=AxisMap().shift - cut) for cut in cuts[2:]]) if len(cuts) > 2 else None
        )
