"""Data layers of forks. What they read is not read here; `caffe-fcn deploy` puts Inputs in their place."""

from __future__ import annotations

from caffe_fcn.layers.base import Layer, Sequence, Shape

MANY = 1 << 31


class _ForkData(Layer, bottoms=0, tops=range(1, MANY)):
    """Batches out of a source that only a fork knows. Tops: their shapes only the source tells."""

    role = "data"
    no_onnx = "reads training data; `caffe-fcn deploy` puts an Input in its place"

    def reshape(self, bottoms: Sequence[Shape]) -> list[Shape]:
        self.check(
            False,
            f"the training data of {self.fork} is not read here",
            "`caffe-fcn deploy` or `--input-shape BLOB:1,3,H,W` makes do without it",
        )
        return []


class DenseImageData(_ForkData):
    """SegNet's images and label images. Tops: images; labels."""

    fork = "SegNet"


class ImageSegData(_ForkData):
    """DeepLab's images and label images. Tops: images; labels; their sizes."""

    fork = "DeepLab, PSPNet"


class WindowSegData(_ForkData):
    """DeepLab's windows of images with their labels. Tops: images; labels."""

    fork = "DeepLab"


class MatRead(_ForkData):
    """Matrices of .mat files. Tops: one for each matrix."""

    fork = "DeepLab, PSPNet"


class SegData(_ForkData):
    """Images and label images of a list. Tops: images; labels."""

    fork = "yjxiong's Caffe"


class AnnotatedData(_ForkData):
    """SSD's images and boxes. Tops: images; boxes."""

    fork = "SSD"


class AnnotatedRData(_ForkData):
    """Images and turned boxes. Tops: images; boxes."""

    fork = "makefile/frcnn"


class VideoData(_ForkData):
    """Frames of a camera or of files. Tops: frames; labels."""

    fork = "SSD, yjxiong's Caffe"


class BoxData(_ForkData):
    """Images and boxes of YOLO. Tops: images; boxes."""

    fork = "Intel Caffe"


class LaneData(_ForkData):
    """Images and lanes. Tops: images; lanes."""

    fork = "MobileNet-YOLO"


class FrcnnRoiData(_ForkData):
    """Images and regions of Faster R-CNN. Tops: images; what is known of them; boxes."""

    fork = "makefile/frcnn"


class FrcnnVidData(_ForkData):
    """Frames and regions of Faster R-CNN. Tops: frames; what is known of them; boxes."""

    fork = "makefile/frcnn"


class BinaryData(_ForkData):
    """Raw arrays of files. Tops: one for each array."""

    fork = "a fork"


class ImageLabelmapData(_ForkData):
    """HED's images and edge maps. Tops: images; edges."""

    fork = "HED"


class ImageLabelData(_ForkData):
    """Images and label images. Tops: images; labels."""

    fork = "caffe-jacinto"


class ImageLabelListData(_ForkData):
    """Images and label images of two lists. Tops: images; labels."""

    fork = "caffe-jacinto"


class MultiLabelImageData(_ForkData):
    """Images with several labels each. Tops: images; labels."""

    fork = "caffe-windows"


class CustomData(_ForkData):
    """FlowNet's images and flows. Tops: images; flows."""

    fork = "FlowNet 2"
