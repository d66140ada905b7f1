"""What the demo measured, as a table and as data."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ..quant.calibration import moments_folder
from ..quant.text import format_bytes, text_table


@dataclass(frozen=True)
class VariantResult:
    """What one variant costs.

    Attributes:
        path: the checkpoint.
        file_bytes: its size.
        bits_per_weight: over the Linears inside the blocks, scales included.
        static_scales: layers with a stored ``input_scale``.
        error_w4a16: relative latent error with rounded weights only.
        error_w4a4: the same with activations rounded as well, each layer in its own format.
        accuracy: fraction of the digits the judge recognises, with rounded activations.
    """

    name: str
    title: str
    path: str
    file_bytes: int
    bits_per_weight: float
    static_scales: int
    error_w4a16: float
    error_w4a4: float
    accuracy: float


@dataclass(frozen=True)
class DemoResult:
    """The demo's figures and files.

    Errors are ``||latents - reference|| / ||reference||`` over all images, at equal noise.
    ``reference_accuracy`` and ``reference_bytes`` are of the source model.
    """

    folder: str
    images: int
    steps: int
    calibration_calls: int
    reference_path: str
    reference_bytes: int
    reference_accuracy: float
    variants: tuple[VariantResult, ...]
    calibration: str
    picture: str
    reports: tuple[str, ...]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return JSON-serialisable data."""
        return asdict(self)

    def to_text(self) -> str:
        """Return the table of errors and the files."""
        reference = (
            "bf16",
            format_bytes(self.reference_bytes),
            "16.00",
            "-",
            "-",
            f"{self.reference_accuracy:.1%}",
        )
        rows = [
            (
                variant.title,
                format_bytes(variant.file_bytes),
                f"{variant.bits_per_weight:.2f}",
                f"{variant.error_w4a16:.2%}",
                f"{variant.error_w4a4:.2%}",
                f"{variant.accuracy:.1%}",
            )
            for variant in self.variants
        ]
        return "\n".join(
            [
                text_table(_HEADINGS, [reference, *rows]),
                "",
                f"Latent errors on {self.images} digits, {self.steps} steps, from noise that "
                "calibration has not seen.",
                *_LEGEND,
                "",
                *(f"wrote {path}" for path in self.files()),
                f"time  {self.seconds:.0f} s, {self.calibration_calls} model calls of calibration",
            ]
        )

    def files(self) -> list[str]:
        """Return every file that was written, and the folder of Hessians."""
        checkpoints = [variant.path for variant in self.variants]
        hessians = str(moments_folder(self.calibration))
        return [self.calibration, hessians, *checkpoints, *self.reports, self.picture]


_LEGEND = (
    "bits    per weight of the Linears inside the blocks, scales included",
    "W4A16   weights rounded, activations in full precision: hardware without native NVFP4",
    "W4A4    activations rounded as well: Blackwell (float8 layers: 8 bits for both)",
    "static  a calibrated activation scale per layer; dynamic: the GPU takes one per call",
)
_HEADINGS = ("variant", "file", "bits", "W4A16 error", "W4A4 error", "right digits")
