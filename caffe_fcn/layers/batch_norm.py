"""BatchNorm. Semantics: src/caffe/layers/batch_norm_layer.cpp, of BVLC's Caffe and of forks."""

from __future__ import annotations

from typing import Any, NamedTuple

from caffe_fcn.layers.base import Array, Builder, Layer, Parameter, Sequence, Shape, Size, Value, fixed, np


class Form(NamedTuple):
    """What the blobs are. Over a factor, mean and variance are sums; a counter says nothing about them."""

    fork: str
    blobs: tuple[str, ...]


STOCK = Form("", ("mean", "variance", "factor"))
NVCAFFE = Form("NVCaffe", ("mean", "variance", "counter", "scale", "bias"))
INTEL = Form("Intel Caffe", ("mean", "variance", "factor", "scale", "bias"))
INTEL_NO_BIAS = Form("Intel Caffe", INTEL.blobs[:4])
XILINX = Form("caffe-xilinx", ("scale", "bias", "mean", "variance", "counter"))  # and NVCaffe's of 2016

_OF_NVCAFFE = {"scale_bias"}
_OF_INTEL = {"use_weight_bias", "bias_term", "filler"}


class _Flat(NamedTuple):
    """A blob of a weights file, as an array of one axis."""

    data: Array
    legacy: bool = False


class BatchNorm(Layer):
    """Subtract the mean of each channel and divide by its standard deviation, sqrt(variance + `eps`).

    Bottom: (N, C, ...). Top: the same. In phase TEST, or with `use_global_stats`, the statistics are the
    stored ones, over the stored factor (0 where that is 0); else the batch's, and the stored ones move on.

    Forks have 5 blobs, with a scale and a bias of each channel in one layer. Which `form` it is shows in the
    weights file: the single number is the third blob of NVCaffe and Intel Caffe (who has 4 blobs without a
    bias), the last of others. In the third place NVCaffe leaves 0 or 1 and never reads it; for Intel Caffe it
    is the factor. Until there is a file the prototxt tells, by more than 3 `param` or by fields that only
    forks have. The statistics of a fork's layer do not move, and it starts at scale 1 and bias 0.
    """

    pointwise = True

    def setup(self) -> None:
        told = {field.name for field, _ in self.param.batch_norm_param.ListFields()}
        p = self.param.batch_norm_param
        self.form = STOCK
        if p.scale_bias:
            self.form = NVCAFFE
        elif told & _OF_INTEL and p.use_weight_bias:
            self.form = INTEL if p.bias_term else INTEL_NO_BIAS
        elif len(self.param.param) > 3 or any(name.endswith("_filler") for name in told):
            self.form = XILINX

    @property
    def global_stats(self) -> bool:
        """Whether the stored statistics are used; NVCaffe has no choice in phase TEST."""
        p = self.param.batch_norm_param
        if self.form == NVCAFFE and not self.training:
            return True
        return p.use_global_stats if p.HasField("use_global_stats") else not self.training

    @property
    def variant(self) -> str:
        """Whose BatchNorm it is, if not stock Caffe's."""
        return f"{self.form.fork}'s BatchNorm of {len(self.form.blobs)} blobs" if self.form.fork else ""

    def parameters(self, bottoms: Sequence[Shape]) -> list[Parameter]:
        (bottom,) = bottoms
        self.check(len(bottom) >= 2, f"needs at least 2 axes (N, C), got {bottom}")
        one = type(self.param.scale_param.filler)(type="constant", value=1)
        shapes = zip(self.form.blobs, self._shapes(bottom[1]), strict=True)
        return [Parameter(name, shape, one if name == "scale" else None) for name, shape in shapes]

    def _shapes(self, channels: Size) -> list[Shape]:
        return [(1,) if name in ("factor", "counter") else (channels,) for name in self.form.blobs]

    def adapt(self, stored: Sequence[Any]) -> Sequence[Any]:
        form = self._form(stored)
        if form is None:
            return stored
        if form != self.form:
            (channels,), kind = self._blob("mean").shape, type(self.blobs[0])
            self.form = form
            self.blobs[:] = map(kind, self._shapes(channels))
        return stored if form == STOCK else [blob and _Flat(blob.data.reshape(-1)) for blob in stored]

    def _form(self, stored: Sequence[Any]) -> Form | None:
        """Which it is by its blobs; those of one channel leave it open. None: no BatchNorm."""
        single = [blob is not None and blob.data.size == 1 for blob in stored]
        if len(stored) == 4 and single[2]:
            return INTEL_NO_BIAS
        if len(stored) != 5:
            return STOCK if len(stored) == 3 else None
        if single[2] == single[4]:
            return XILINX if self.form == STOCK else self.form
        if single[4] or self.form in (NVCAFFE, INTEL):
            return XILINX if single[4] else self.form
        return NVCAFFE if stored[2].data.reshape(-1)[0] in (0, 1) else INTEL

    def reshape(self, bottoms: Sequence[Shape]) -> list[Shape]:
        (bottom,), (channels,) = bottoms, self._blob("mean").shape
        fits = len(bottom) >= 2 and bottom[1] == channels
        self.check(fits, f"has statistics of {channels} channels, its bottom is {bottom}")
        return [bottom]

    def _blob(self, name: str) -> Any:
        return self.blobs[self.form.blobs.index(name)]

    def _over_factor(self) -> np.float32:
        """What stored mean and variance are to be multiplied by."""
        if "factor" not in self.form.blobs:
            return np.float32(1)
        factor = self._blob("factor").data[0]
        return np.float32(1) / factor if factor else np.float32(0)

    def forward(self, bottoms: Sequence[Array]) -> list[Array]:
        (x,) = bottoms
        each = (-1, *(1,) * (x.ndim - 2))  # one number for each channel
        with np.errstate(all="ignore"):
            if self.global_stats:
                over = self._over_factor()
                mean, variance = (self._blob(name).data * over for name in ("mean", "variance"))
                top = x - mean.reshape(each)
            else:
                axes = (0, *range(2, x.ndim))
                mean = x.mean(axes)
                top = x - mean.reshape(each)
                variance = np.square(top).mean(axes)
                self._remember(mean, variance, x.size // max(x.shape[1], 1))
            top /= np.sqrt(variance + np.float32(self.param.batch_norm_param.eps)).reshape(each)
        if self.form != STOCK:
            top *= self._blob("scale").data.reshape(each)
            if "bias" in self.form.blobs:
                top += self._blob("bias").data.reshape(each)
        return [top]

    def _remember(self, mean: Array, variance: Array, count: int) -> None:
        """Let the stored sums decay, and add the statistics of a batch of `count` elements a channel."""
        if self.form != STOCK:
            return
        unbiased = variance * np.float32(count / (count - 1) if count > 1 else 1)
        for values, new in zip(self.weights, (mean, unbiased, np.float32(1)), strict=True):
            values *= np.float32(self.param.batch_norm_param.moving_average_fraction)
            values += new

    def to_onnx(self, g: Builder, bottoms: Sequence[Value]) -> list[str]:
        (x,) = bottoms
        if not self.global_stats:
            return [self._by_batch(g, x)]
        if self.form == STOCK:
            channels = fixed(x.shape[1])
            scale, bias = (g.array(np.full(channels, value, np.float32)) for value in (1, 0))
        else:
            scale, bias = self._initializer(g, "scale"), self._bias(g)
        over = self._over_factor()
        mean, variance = (self._initializer(g, name, over) for name in ("mean", "variance"))
        eps = self.param.batch_norm_param.eps
        return [g.op("BatchNormalization", x, scale, bias, mean, variance, epsilon=eps)]

    def _initializer(self, g: Builder, name: str, factor: np.float32 | int = 1, behind: int = 0) -> str:
        """A blob times `factor`, with `behind` axes of 1 appended."""
        array = self._blob(name).data
        array = array if factor == 1 else array * factor
        return g.param(self._blob(name), name, array.reshape(-1, *(1,) * behind))

    def _bias(self, g: Builder, behind: int = 0) -> str:
        if "bias" in self.form.blobs:
            return self._initializer(g, "bias", behind=behind)
        return g.array(np.zeros((self._blob("scale").shape[0], *(1,) * behind), np.float32))

    def _by_batch(self, g: Builder, x: Value) -> str:
        axes = [0, *range(2, len(x.shape))]
        top = g.op("Sub", x, g.reduce("ReduceMean", x, axes))
        variance = g.reduce("ReduceMean", g.op("Mul", top, top), axes)
        eps = g.scalar(self.param.batch_norm_param.eps)
        top = g.op("Div", top, g.op("Sqrt", g.op("Add", variance, eps)))
        if self.form != STOCK:
            behind = len(x.shape) - 2
            top = g.op("Mul", top, self._initializer(g, "scale", behind=behind))
            top = g.op("Add", top, self._bias(g, behind))
        return top
