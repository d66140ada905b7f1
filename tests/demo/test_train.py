"""The training script in miniature: what it draws, what it writes, and the extra it asks for."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from nvfp4_foundry.demo import train
from nvfp4_foundry.demo.digits import load_task, new_task
from nvfp4_foundry.demo.judge import Judge, load_judge
from nvfp4_foundry.demo.model import load_model


def test_missing_scikit_learn_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match=r"pip install scikit-learn"):
        train.load_images()


def test_a_short_run_trains_and_writes_what_the_loaders_read(tmp_path: Path) -> None:
    training = train.Training(steps=3, batch=4, warmup=1, seed=1)
    images, labels = torch.rand(20, 8, 8), torch.arange(20) % 10
    task, judge = new_task(seed=1), Judge(torch.randn(10, 64), torch.randn(10))
    model = train.train_flow(task, images, labels, training)
    train.save_model(model, tmp_path / "model.safetensors", training)
    train.save_task(task, judge, tmp_path / "digits.safetensors", training)

    read = load_model(tmp_path / "model.safetensors").state_dict()
    for name, tensor in model.state_dict().items():
        assert torch.equal(read[name], tensor.to(torch.bfloat16).float()), name
    assert torch.equal(
        load_task(tmp_path / "digits.safetensors").class_contexts, task.class_contexts
    )
    assert torch.equal(load_judge(tmp_path / "digits.safetensors").weight, judge.weight)


def test_contexts_are_dropped_at_the_stated_rate() -> None:
    torch.manual_seed(0)
    task = load_task()
    training = train.Training(batch=1000, dropped_context=0.1)
    _, contexts, sigmas = train.training_batch(
        task, torch.rand(10, 8, 8), torch.arange(10), training
    )
    empty = (contexts == task.empty_context.float()).flatten(1).all(dim=1)
    assert empty.float().mean().item() == pytest.approx(0.1, abs=0.03)
    assert sigmas.min() > 0 and sigmas.max() < 1


def test_learning_rate_warms_up_then_decays_to_zero() -> None:
    training = train.Training(steps=100, warmup=10)
    rates = [train.learning_rate_factor(step, training) for step in range(101)]
    assert rates[:10] == sorted(rates[:10]) and rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[100] == pytest.approx(0.0)
