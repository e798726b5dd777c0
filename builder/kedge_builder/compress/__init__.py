"""Smaller networks: structured pruning, fine-tuning, quantization-aware training."""
