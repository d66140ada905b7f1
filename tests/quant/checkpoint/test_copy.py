"""A checkpoint copied to another name."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from nvfp4_foundry.quant.checkpoint.copy import copy_checkpoint
from nvfp4_foundry.quant.checkpoint.digests import without_digests
from nvfp4_foundry.quant.errors import FileError
from nvfp4_foundry.quant.sources import open_tensors
from safetensors.torch import save_file


def test_everything_is_copied_and_an_interruption_leaves_nothing(tmp_path: Path) -> None:
    source, target = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    tensors = {"x": torch.randn(3, 5), "empty": torch.empty(0, 4), "s": torch.tensor(2.0)}
    save_file({n: t.bfloat16() if n == "x" else t for n, t in tensors.items()}, source, {"k": "v"})

    def stop(done: int, total: int, name: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        copy_checkpoint(source, target, on_progress=stop)
    assert [path.name for path in tmp_path.iterdir()] == [source.name]
    copy_checkpoint(source, target)
    with open_tensors(source) as one, open_tensors(target) as other:
        assert dict(one.metadata) == without_digests(other.metadata)
        assert set(one.tensors) == set(other.tensors)
        assert all(torch.equal(one.load(name), other.load(name)) for name in one.tensors)
    with pytest.raises(FileError, match="exists"):
        copy_checkpoint(source, target)
