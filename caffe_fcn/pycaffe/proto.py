"""caffe.proto: the messages of caffe.proto."""

from __future__ import annotations

from caffe_fcn.formats import caffe_pb2

__all__ = ["caffe_pb2"]
