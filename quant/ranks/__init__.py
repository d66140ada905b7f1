"""Several processes (ranks) that share one work, on one machine or on many.

They are started by ``torchrun``. Only words pass between them, never tensors: reports, progress
and errors, through the key-value store of ``torch.distributed``. So the same code serves CPUs and
GPUs, and a rank that waits for others notices within a second that one failed.
"""
