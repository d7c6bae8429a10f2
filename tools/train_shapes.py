"""Train the small net of prototxts/shapes-fcn8s, so that the demo segments pictures in earnest.

    python3 tools/train_shapes.py --seconds 2400 --out weights.npz --caffemodel shapes-fcn8s.caffemodel

The net is voc-fcn8s layer for layer, only narrower, and its pictures come from draw_shapes.py: a data set
without an end, drawn while it trains, of which the held-out part has seeds of its own. Training happens in
PyTorch (`pip install torch numpy pillow`; the package itself never needs it) and takes four liberties that
leave no trace in the weights:

1. Batch normalisation follows the hidden convolutions from conv2_1 on, to learn faster; it is folded into
   them at the end. That is exact, also at the borders: the norm comes after the convolution and its padding.
2. Matrix products are in bfloat16. The weights are float32 throughout, and so is the held-out measurement.
3. The Dropout layers are left out: no picture is seen twice, so there is nothing to learn by heart.
4. For the first part, conv1_1 pads by 36 and not by 100: see `trim` in Fcn8s.forward. Most of the time would
   go into margins without a picture else.

The weights in prototxts/shapes-fcn8s took 2400 seconds on two shared CPU cores, 8,600 batches, when shapes
might still be covered by 40 % and cut by 30 % (now 20 %, see draw_shapes.py). They reach a mean IU of 0.89 on
300 held-out pictures of today's rule, 0.845 of that rule.

The .npz holds each layer's blobs in Caffe's order and layout: `NAME:0` the weight, `NAME:1` the bias.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch
from draw_shapes import CLASSES, draw, draw_any_size, to_input
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (PyTorch's own custom)
from torch.utils.data import DataLoader, Dataset

ROOT = Path(__file__).resolve().parent.parent
NAME = "shapes-fcn8s"
WIDTHS = (16, 24, 48, 64, 64)  # channels of conv1 to conv5
DEPTHS = (2, 2, 3, 3, 3)  # convolutions in each, as in VGG16
FC_WIDTH = 96  # channels of fc6 and fc7
HELD_OUT = (2015, 2)  # held-out picture i has the seed (2015, 2, i), training batch i (--seed, 1, i)


def bilinear(channels: int, size: int) -> Tensor:
    """A Deconvolution's weight that interpolates each channel by itself (surgery.upsample_filt).

    >>> bilinear(1, 4)[0, 0, 1] * 16
    tensor([3., 9., 9., 3.])
    """
    factor = (size + 1) // 2
    center = factor - 1 if size % 2 else factor - 0.5
    ramp = 1 - (torch.arange(size) - center).abs() / factor
    return torch.einsum("io,y,x->ioyx", torch.eye(channels), ramp, ramp)


def crop(x: Tensor, reference: Tensor, offset: int) -> Tensor:
    """Caffe's Crop with axis 2: cut x to the height and width of the reference, `offset` into it."""
    height, width = reference.shape[2:]
    return x[:, :, offset : offset + height, offset : offset + width]


class Fcn8s(nn.Module):
    """FCN-8s with Caffe's layer names: (n, 3, h, w), as to_input gives it, -> scores (n, classes, h, w)."""

    def __init__(self) -> None:
        super().__init__()
        classes = len(CLASSES)
        self.layers = nn.ModuleDict()
        self.norms = nn.ModuleDict()  # empty once folded
        self.blocks: list[list[str]] = []
        width = 3
        for block, (next_width, depth) in enumerate(zip(WIDTHS, DEPTHS, strict=True), start=1):
            self.blocks.append([f"conv{block}_{number}" for number in range(1, depth + 1)])
            for name in self.blocks[-1]:
                self._add(name, width, next_width, size=3, pad=100 if name == "conv1_1" else 1)
                width = next_width
        self._add("fc6", width, FC_WIDTH, size=7)
        self._add("fc7", FC_WIDTH, FC_WIDTH)
        for score, inputs, upscore, stride in (
            ("score_fr", FC_WIDTH, "upscore2", 2),
            ("score_pool4", WIDTHS[3], "upscore_pool4", 2),
            ("score_pool3", WIDTHS[2], "upscore8", 8),
        ):
            self._add(score, inputs, classes)
            layer = nn.ConvTranspose2d(classes, classes, 2 * stride, stride, bias=False)
            layer.weight = nn.Parameter(bilinear(classes, 2 * stride), requires_grad=False)
            self.layers[upscore] = layer

    def _add(self, name: str, inputs: int, outputs: int, size: int = 1, pad: int = 0) -> None:
        scores = name.startswith("score")
        layer = nn.Conv2d(inputs, outputs, size, padding=pad)
        nn.init.kaiming_normal_(layer.weight, nonlinearity="linear" if scores else "relu")
        nn.init.zeros_(layer.bias)
        self.layers[name] = layer
        # No norm in block 1: over its large maps it would cost a quarter of the time, and conv2_1's does.
        if not scores and not name.startswith("conv1"):
            # Slow statistics, since each batch has another size and so another share of padding.
            self.norms[name] = nn.BatchNorm2d(outputs, momentum=0.02)

    def _hidden(self, name: str, x: Tensor) -> Tensor:
        x = self.layers[name](x)
        return F.relu(self.norms[name](x) if name in self.norms else x)

    def forward(self, data: Tensor, trim: int = 0) -> Tensor:
        """Score every pixel; with `trim`, nearly the same scores in less time.

        That many cells of 32 pixels are cut off the padding at each side, and made up for at pool5 by copies
        of its outermost cells. The pools before lack 32 * trim / stride cells at each side, so the Crops'
        offsets are smaller. trim=2 fits sides of 11 to 26 more than a multiple of 32 only (pool4 even).
        """
        self.layers["conv1_1"].padding = (100 - 32 * trim,) * 2
        x, pools = data, []
        for names in self.blocks:
            for name in names:
                x = self._hidden(name, x)
            x = F.max_pool2d(x, 2, ceil_mode=True)  # Caffe rounds the size of a pooling up
            pools.append(x)
        layers = self.layers
        if trim:
            x = F.pad(x, (trim,) * 4, mode="replicate")
        x = layers["score_fr"](self._hidden("fc7", self._hidden("fc6", x)))
        x = layers["upscore2"](x)
        x = x + crop(layers["score_pool4"](pools[3]), x, 5 - 2 * trim)
        x = layers["upscore_pool4"](x)
        x = x + crop(layers["score_pool3"](pools[2]), x, 9 - 4 * trim)
        return crop(layers["upscore8"](x), data, 31)

    def fold(self) -> None:
        """Fold each batch normalisation, by its running statistics, into the convolution before it."""
        with torch.no_grad():
            for name, norm in self.norms.items():
                layer = self.layers[name]
                scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
                layer.weight *= scale[:, None, None, None]
                layer.bias.copy_((layer.bias - norm.running_mean) * scale + norm.bias)
        self.norms = nn.ModuleDict()

    def blobs(self) -> dict[str, list[np.ndarray]]:
        """Each layer's blobs, weight then bias, as a .caffemodel stores them."""
        if self.norms:
            raise RuntimeError("fold() first: Caffe's layers have no place for the normalisations")
        return {
            name: [np.ascontiguousarray(value.detach().cpu().numpy()) for value in layer.parameters()]
            for name, layer in self.layers.items()
        }


class Batches(Dataset):
    """Batch i, always the same: pictures of one size, another size for each i.

    The pictures are larger than in use, since padding by 100 makes small ones cost the most a pixel; each
    batch has about as many pixels as the next; the sizes are few, since oneDNN compiles for each;
    and they are fit for trim=2.
    """

    SIZES = (
        *((117, 277), (139, 178), (175, 307), (212, 273), (149, 212), (245, 307)),
        *((277, 117), (178, 139), (307, 175), (178, 245), (212, 212), (242, 242)),
    )

    def __init__(self, seed: int, pixels: int) -> None:
        self.seed, self.pixels = seed, pixels

    def __len__(self) -> int:
        return 10**9  # never used up: training stops by time or by --iterations

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng((self.seed, 1, index))
        height, width = self.SIZES[rng.integers(len(self.SIZES))]
        count = max(1, round(self.pixels / (height * width)))
        pictures, labels = zip(*(draw(rng, height, width) for _ in range(count)), strict=True)
        inputs = np.stack([to_input(picture) for picture in pictures])
        return torch.from_numpy(inputs), torch.from_numpy(np.stack(labels).astype(np.int64))


def train(net: Fcn8s, args: argparse.Namespace) -> None:
    """Train by AdamW for args.seconds or args.iterations, whichever ends first."""
    net.to(args.device, memory_format=torch.channels_last).train()  # the faster order, on CPU and GPU
    optimizer = torch.optim.AdamW([p for p in net.parameters() if p.requires_grad], weight_decay=1e-4)
    batches = DataLoader(Batches(args.seed, args.pixels), batch_size=None, num_workers=args.workers)
    start, mean_loss = time.monotonic(), 0.0
    for iteration, (data, label) in enumerate(batches):
        seconds = time.monotonic() - start
        progress = max(iteration / args.iterations, seconds / args.seconds)
        if progress >= 1:
            break
        warmth = min(1.0, (iteration + 1) / 100)
        for group in optimizer.param_groups:
            group["lr"] = args.rate * warmth * 0.5 * (1 + np.cos(np.pi * progress))
        if progress > 0.8:
            # From here on the norms are what they will be folded as, and the rest adapts to that.
            for norm in net.norms.values():
                norm.eval()
        data = data.to(args.device).contiguous(memory_format=torch.channels_last)
        with torch.autocast(args.device, dtype=torch.bfloat16):
            score = net(data, trim=2 if progress < 0.6 else 0)
        loss = F.cross_entropy(score.float(), label.to(args.device))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        mean_loss += (loss.item() - mean_loss) / min(iteration + 1, 100)
        if iteration % 100 == 0:
            print(f"iteration {iteration}, {seconds:.0f} s, loss {mean_loss:.4f}", flush=True)


@torch.no_grad()
def intersection_over_union(net: Fcn8s, count: int, device: str) -> np.ndarray:
    """Each class's IU over `count` held-out pictures, from their summed confusion matrix (score.py)."""
    net.to(device).eval()
    classes = len(CLASSES)
    confusion = np.zeros((classes, classes))
    for index in range(count):
        picture, label = draw_any_size(np.random.default_rng((*HELD_OUT, index)))
        score = net(torch.from_numpy(to_input(picture))[None].to(device))
        pairs = classes * label.astype(np.int64) + score[0].argmax(0).cpu().numpy()
        confusion += np.bincount(pairs.ravel(), minlength=classes**2).reshape(classes, classes)
    return np.diag(confusion) / (confusion.sum(0) + confusion.sum(1) - np.diag(confusion))


def save(net: Fcn8s, npz: Path, caffemodel: Path | None) -> None:
    """Write the folded net's blobs to an .npz and, by caffe_fcn, to a .caffemodel."""
    blobs = net.blobs()
    arrays = {f"{name}:{index}": blob for name, layer in blobs.items() for index, blob in enumerate(layer)}
    np.savez(npz, **arrays)
    print(f"{sum(array.size for array in arrays.values())} numbers in {len(blobs)} layers")
    if caffemodel:
        sys.path.insert(0, str(ROOT))  # the package beside this file, installed or not; training needs it not
        from caffe_fcn.formats.caffemodel import write

        types = {nn.Conv2d: "Convolution", nn.ConvTranspose2d: "Deconvolution"}
        write(caffemodel, NAME, ((name, types[type(net.layers[name])], blobs[name]) for name in blobs))


def main() -> None:
    """Train, save, measure."""
    parser = argparse.ArgumentParser(description="Train the small FCN-8s of prototxts/shapes-fcn8s.")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--seconds", type=float, default=2400, help="stop after this time")
    parser.add_argument("--iterations", type=int, default=10**9, help="or after so many batches")
    parser.add_argument("--pixels", type=int, default=120_000, help="of the pictures in a batch")
    parser.add_argument("--rate", type=float, default=2e-3, help="the highest learning rate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2, help="processes that draw pictures")
    parser.add_argument("--held-out", type=int, default=200, help="pictures to measure on")
    parser.add_argument("--out", type=Path, default=Path("weights.npz"))
    parser.add_argument("--caffemodel", type=Path, help="write this file too, in Caffe's format")
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    net = Fcn8s()
    train(net, args)
    net.fold()
    save(net, args.out, args.caffemodel)
    scores = intersection_over_union(net, args.held_out, args.device)
    for name, score in zip(CLASSES, scores, strict=True):
        print(f"{name:>12} {score:.4f}")
    print(f"{'mean IU':>12} {scores.mean():.4f} on {args.held_out} held-out pictures")


if __name__ == "__main__":
    main()
