"""Inference: tensors in, tensors out, by the Open Inference Protocol version 2."""
