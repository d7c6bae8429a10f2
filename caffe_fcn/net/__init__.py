"""What Net::Init does: rules, splits, blobs, shapes, weights, and the forward pass."""

from caffe_fcn.blob import Blob
from caffe_fcn.net.net import TEST, TRAIN, Net, Source

__all__ = ["TEST", "TRAIN", "Blob", "Net", "Source"]
