"""How fast the reference forward pass is: its convolutions beside one plain matrix product of the same size.

    python tools/bench/numpy_engine.py [--side 500] [--rounds 5]

A row for each shape of convolution in a full-width FCN-8s on a square image: the best of several rounds,
both timed in turn. `ratio` is what im2col, padding and bias cost on top of BLAS. Deconvolutions are timed
with the bilinear kernel, zero between classes, and with a learned, dense one.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np

from caffe_fcn.geometry import Window
from caffe_fcn.numeric.conv import conv
from caffe_fcn.numeric.deconv import deconv


def shapes(side: int) -> list[tuple[str, int, int, Window, int]]:
    """(name, channels, outputs, window, size of the bottom) of the convolutions that differ."""
    rows, size, channels = [], side, 3
    for block, (width, layers) in enumerate([(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)], start=1):
        for i in range(min(layers, 2)):
            window = Window(3, pad=100 if not rows else 1)
            rows.append((f"conv{block}_{i + 1}", channels, width, window, size))
            size, channels = window.count(size), width
        size = -(-size // 2)
    rows.append(("fc6", 512, 4096, Window(7), size))
    rows.append(("fc7", 4096, 4096, Window(1), size - 6))
    rows.append(("score_fr", 4096, 21, Window(1), size - 6))
    return rows


def best(rounds: int, *jobs: Callable[[], object]) -> list[float]:
    """Seconds of the fastest round of each job; one after the other in every round."""
    times = [[0.0] * rounds for _ in jobs]
    for n in range(rounds):
        for seconds, job in zip(times, jobs, strict=True):
            start = time.perf_counter()
            job()
            seconds[n] = time.perf_counter() - start
    return [min(seconds) for seconds in times]


def convolution(
    rounds: int, channels: int, outputs: int, window: Window, size: int
) -> tuple[float, float, int]:
    """Seconds of the convolution and of the plain product, and its multiply-accumulates."""
    rng, count = np.random.default_rng(0), window.count(size)
    x = rng.random((1, channels, size, size), np.float32)
    weight = rng.random((outputs, channels, window.kernel, window.kernel), np.float32)
    bias = rng.random(outputs, np.float32)
    matrix, columns = weight.reshape(outputs, -1), rng.random((weight[0].size, count * count), np.float32)
    into = np.empty((outputs, count * count), np.float32)
    ours, plain = best(
        rounds,
        lambda: conv(x, weight, bias, 1, [window] * 2, [count] * 2),
        lambda: np.matmul(matrix, columns, out=into),
    )
    return ours, plain, weight.size * count * count


def deconvolution(rounds: int, kernel: int, size: int) -> list[float]:
    """Seconds with a kernel that is zero between channels, and with a dense one."""
    rng, window = np.random.default_rng(0), Window(kernel, kernel // 2)
    x, dense = rng.random((1, 21, size, size), np.float32), rng.random((21, 21, kernel, kernel), np.float32)
    diagonal = dense * np.eye(21, dtype=np.float32)[:, :, None, None]
    sizes = [window.span(size)] * 2
    jobs = [lambda w=w: deconv(x, w, None, 1, [window] * 2, sizes) for w in (diagonal, dense)]
    return best(rounds, *jobs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=500, help="of the image, pixels")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    print(f"{'layer':12} {'bottom':>18} {'GMAC':>8} {'ms':>9} {'sgemm ms':>9} {'GFLOP/s':>9} {'ratio':>6}")
    for name, channels, outputs, window, size in shapes(args.side):
        ours, plain, macs = convolution(args.rounds, channels, outputs, window, size)
        bottom = f"{channels} x {size} x {size}"
        print(
            f"{name:12} {bottom:>18} {macs / 1e9:8.2f} {ours * 1e3:9.1f} {plain * 1e3:9.1f} "
            f"{2 * macs / ours / 1e9:9.0f} {ours / plain:6.2f}",
            flush=True,
        )
    for kernel, size in ((4, 16), (16, args.side // 8 + 8), (64, 16)):
        diagonal, dense = deconvolution(args.rounds, kernel, size)
        print(
            f"deconvolution {kernel}x{kernel} of 21 x {size} x {size}: {diagonal * 1e3:.1f} ms, "
            f"dense {dense * 1e3:.1f} ms"
        )


if __name__ == "__main__":
    main()
