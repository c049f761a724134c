//! ONNX Runtime sessions and the sliding window. Arrays only.
