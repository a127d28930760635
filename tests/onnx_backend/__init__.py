"""ONNX's own backend tests, run through the product and held against an own run of MNN."""
