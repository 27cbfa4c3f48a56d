"""Noise that decides which patches a masked autoencoder hides."""

from affmae_kernels.mask_noise.op import mask_noise

__all__ = ["mask_noise"]
