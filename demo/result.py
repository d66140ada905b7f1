"""The results of the demo, as a table and as data."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ..quant.calibration import moments_folder
from ..quant.text import format_bytes, text_table


@dataclass(frozen=True)
class VariantResult:
    """The size and errors of one variant.

    Attributes:
        name: id of the variant.
        title: name of the variant for users.
        path: path of the checkpoint.
        file_bytes: size of the checkpoint.
        bits_per_weight: bits with scales, averaged over the Linear layers inside the blocks.
        static_scales: number of layers with a stored ``input_scale``.
        error_w4a16: relative latent error with rounded weights.
        error_w4a4: relative latent error with rounded weights and rounded activations, each layer
            in its own format.
        accuracy: share of the digits that the judge recognises, with rounded activations.
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
    """The figures and files of the demo.

    Errors are ``||latents - reference|| / ||reference||`` over all images, with equal noise. The
    reference is the source model.
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
                f"Latent errors on {self.images} digits with {self.steps} steps, from noise that "
                "the calibration has not seen.",
                *_LEGEND,
                "",
                *(f"wrote {path}" for path in self.files()),
                f"time  {self.seconds:.0f} s, {self.calibration_calls} model calls in the "
                "calibration",
            ]
        )

    def files(self) -> list[str]:
        """Return the paths of all written files, and of the folder with the Hessians."""
        checkpoints = [variant.path for variant in self.variants]
        hessians = str(moments_folder(self.calibration))
        return [self.calibration, hessians, *checkpoints, *self.reports, self.picture]


_LEGEND = (
    "bits    per weight, with scales, in the Linear layers inside the blocks",
    "W4A16   rounded weights, exact activations, as on GPUs without native NVFP4",
    "W4A4    rounded weights and activations, as on Blackwell (8 bits in float8 layers)",
    "static  a calibrated input scale per layer; dynamic: the GPU takes a scale per call",
)
_HEADINGS = ("variant", "file", "bits", "W4A16 error", "W4A4 error", "correct digits")
