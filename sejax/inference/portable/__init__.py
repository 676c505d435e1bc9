"""A bundle without sejax's runtime: ONNX files, or serialised StableHLO, and a description of inputs and outputs."""
