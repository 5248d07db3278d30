"""Transfer learning for medical image segmentation with few labels, in JAX."""

__version__ = "0.1.0"
