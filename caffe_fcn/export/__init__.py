"""Net -> ONNX. The only room that imports onnx."""
