"""From the signed ONNX to what a vendor's runtime loads: one module for each compiler."""
