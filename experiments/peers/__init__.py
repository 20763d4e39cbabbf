"""The published networks in plain PyTorch, to be timed beside ours.

Written from the papers and the published code's facts; parameters have the
published names, so that `pir_jax.pretrained` reads them, and the tests show
that both compute the same. Where PyTorch has two ways, the quicker is taken.
"""
