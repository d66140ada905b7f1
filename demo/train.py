"""Train the demo model and its judge: ``python -m nvfp4_foundry.demo.train``.

This takes about five minutes on two CPU cores. It needs scikit-learn (the extra ``demo-train``) for
the data, 1,797 handwritten digits of 8x8 pixels.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from .digits import CLASSES, DIGITS_PATH, IMAGE_SIZE, DigitsTask, load_task, new_task
from .judge import Judge, load_judge
from .model import MODEL_PATH, TinyWan, load_model
from .sampling import TIMESTEPS, sample, shift_time

DATA_NOTICE = (
    "Trained on scikit-learn's digits, the test set of 'Optical Recognition of Handwritten "
    "Digits' (E. Alpaydin, C. Kaynak, UCI Machine Learning Repository, "
    "https://doi.org/10.24432/C50P49, CC BY 4.0)"
)

HELD_OUT = 360


@dataclass(frozen=True)
class Training:
    """The settings of one training run."""

    steps: int = 1500
    batch: int = 64
    learning_rate: float = 1e-3
    warmup: int = 50
    dropped_context: float = 0.1
    seed: int = 0


def load_images() -> tuple[Tensor, Tensor]:
    """Return scikit-learn's digits as images float32 [1797, 8, 8], 0 to 1, and labels [1797].

    Raises:
        ImportError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as missing:
        raise ImportError(
            "training the demo model needs scikit-learn; run 'pip install scikit-learn'"
        ) from missing
    pixels, digits = load_digits(return_X_y=True)
    images = torch.from_numpy(pixels).unflatten(1, (IMAGE_SIZE, IMAGE_SIZE)).float() / 16
    return images, torch.from_numpy(digits).long()


def fit_judge(images: Tensor, labels: Tensor) -> Judge:
    """Fit a multinomial logistic regression to ``images`` [N, 8, 8] and ``labels`` [N]."""
    from sklearn.linear_model import LogisticRegression

    fitted = LogisticRegression(max_iter=1000).fit(images.flatten(1).numpy(), labels.numpy())
    return Judge(
        weight=torch.from_numpy(fitted.coef_).float().contiguous(),
        bias=torch.from_numpy(fitted.intercept_).float(),
    )


def training_batch(
    task: DigitsTask, images: Tensor, labels: Tensor, training: Training
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw clean latents [B, 16, 1, 8, 8], contexts [B, 4, 4096] and sigmas [B].

    The times are logit-normal and get the shift of the sampler, so that training is densest where
    sampling has its steps.
    """
    picks = torch.randint(len(images), (training.batch,))
    contexts = task.contexts(labels[picks]).float()
    dropped = torch.rand(training.batch) < training.dropped_context
    contexts[dropped] = task.empty_context.float()
    sigmas = shift_time(torch.sigmoid(torch.randn(training.batch)))
    return task.encode(images[picks]), contexts, sigmas


def train_flow(task: DigitsTask, images: Tensor, labels: Tensor, training: Training) -> TinyWan:
    """Train a fresh model by flow matching on ``images`` [N, 8, 8] and ``labels`` [N]."""
    torch.manual_seed(training.seed)
    model = TinyWan()
    optimizer = torch.optim.AdamW(model.parameters(), lr=training.learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: learning_rate_factor(step, training)
    )
    running_loss, started = math.nan, time.monotonic()
    for step in range(training.steps):
        clean, contexts, sigmas = training_batch(task, images, labels, training)
        noise = torch.randn_like(clean)
        mix = sigmas.view(-1, 1, 1, 1, 1)
        velocity = model((1 - mix) * clean + mix * noise, sigmas * TIMESTEPS, contexts)
        loss = nn.functional.mse_loss(velocity, noise - clean)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        running_loss = loss.item() if step == 0 else 0.98 * running_loss + 0.02 * loss.item()
        if step % 100 == 99:
            elapsed = time.monotonic() - started
            print(f"step {step + 1}/{training.steps}  loss {running_loss:.4f}  {elapsed:.0f} s")
    return model.eval()


def learning_rate_factor(step: int, training: Training) -> float:
    """Return the factor of the learning rate: a linear warm-up, then half a cosine to zero."""
    decay = 0.5 * (1 + math.cos(math.pi * step / training.steps))
    return min(1.0, (step + 1) / training.warmup) * decay


def generated_accuracy(model: TinyWan, task: DigitsTask, judge: Judge, count: int) -> float:
    """Return the accuracy of ``count`` generated digits, with equally many of each class."""
    labels = torch.arange(count) % CLASSES
    images = [
        task.decode(sample(model, chunk, seed=seed, task=task))
        for seed, chunk in enumerate(labels.split(100))
    ]
    return judge.accuracy(torch.cat(images), labels)


def save_model(model: TinyWan, path: Path, training: Training) -> None:
    """Write the weights in bfloat16, with WAN's own names."""
    weights = {
        name: tensor.to(torch.bfloat16).contiguous() for name, tensor in model.state_dict().items()
    }
    metadata = {
        "description": "A WAN 2.1 text-to-video transformer of 4.8 M parameters that draws 8x8 "
        "handwritten digits; the demo model of NVFP4 Foundry",
        "license": "Apache-2.0",
        "data": DATA_NOTICE,
        "seed": str(training.seed),
        "steps": str(training.steps),
    }
    save_file(weights, path, metadata=metadata)


def save_task(task: DigitsTask, judge: Judge, path: Path, training: Training) -> None:
    """Write the codec, the contexts and the judge into one file."""
    metadata = {
        "description": "Codec, text contexts and judge of NVFP4 Foundry's demo model",
        "license": "Apache-2.0",
        "data": DATA_NOTICE,
        "seed": str(training.seed),
    }
    save_file({**task.tensors(), **judge.tensors()}, path, metadata=metadata)


def main() -> None:
    """Train, write both files, and measure the accuracy of the written model."""
    parser = argparse.ArgumentParser(description="Train the demo model on 8x8 digits.")
    parser.add_argument("--steps", type=int, default=Training.steps)
    parser.add_argument("--seed", type=int, default=Training.seed)
    parser.add_argument("--samples", type=int, default=500, help="digits to generate and judge")
    parser.add_argument("--model", type=Path, default=MODEL_PATH, help="where to write the model")
    parser.add_argument(
        "--digits",
        type=Path,
        default=DIGITS_PATH,
        help="where to write the codec, contexts and judge",
    )
    args = parser.parse_args()
    training = Training(steps=args.steps, seed=args.seed)

    images, labels = load_images()
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(training.seed))
    held_out, kept = order[:HELD_OUT], order[HELD_OUT:]
    judge = fit_judge(images[kept], labels[kept])
    print(f"judge: {judge.accuracy(images[held_out], labels[held_out]):.1%} of held-out digits")

    save_task(new_task(training.seed), judge, args.digits, training)
    task, judge = load_task(args.digits), load_judge(args.digits)
    save_model(train_flow(task, images[kept], labels[kept], training), args.model, training)
    model = load_model(args.model)
    accuracy = generated_accuracy(model, task, judge, args.samples)
    print(f"{accuracy:.1%} of {args.samples} generated digits are correct")


if __name__ == "__main__":
    main()
