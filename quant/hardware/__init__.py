"""Which formats a GPU runs natively, the hardware of this machine, and emulation of other GPUs."""
