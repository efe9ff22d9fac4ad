"""ONNX: graphs traced without weights, shaped by passes, then given the weights as files beside them."""
