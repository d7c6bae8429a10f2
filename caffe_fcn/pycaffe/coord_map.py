"""caffe.coord_map: where a coordinate of one top lies in another, and the Crop that follows from it."""

from __future__ import annotations

from caffe_fcn.coords import (
    AxisMismatchException,
    UndefinedMapException,
    coord_map,
    coord_map_from_to,
    crop,
)

__all__ = ["AxisMismatchException", "UndefinedMapException", "coord_map", "coord_map_from_to", "crop"]
