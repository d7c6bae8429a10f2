"""Layer types that are not in stock Caffe; each class names its fork."""
