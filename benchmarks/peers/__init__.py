"""The project's networks in PyTorch, with the same weights, and MONAI's U-Net: what `benchmarks.compare` times against.

Only `compare`'s PyTorch process imports torch: two frameworks in one process would share and fight over its threads.
"""
