"""Fetch files from the Hugging Face Hub: ``hf://owner/repo/path`` becomes a local path.

``huggingface_hub`` fetches them into its cache and finds them there the next time.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ..errors import SourceError
from ..files.json_file import read_json

HUB = "hf://"
_INDEX = ".index.json"
_FILES = (".safetensors", ".gguf", _INDEX)
# hf://owner/repo[@revision]/path[@revision]
_LOCATION = re.compile(r"hf://([^/@]+)/([^/@]+)(?:@([^/@]+))?(?:/([^@]*))?(?:@(.+))?")


@dataclass(frozen=True)
class HubLocation:
    """A place on the Hub: ``path`` is a file, or a folder (empty: the repository's root)."""

    repo: str
    path: str
    revision: str | None = None

    @property
    def is_file(self) -> bool:
        """Whether the path names one file."""
        return self.path.endswith(_FILES)


def parse_hub_location(text: str) -> HubLocation:
    """Parse ``hf://owner/repo/path[@revision]``; the revision may also follow the repository.

    Raises:
        SourceError: the text has another form, or names a file that cannot be a source.
    """
    found = _LOCATION.fullmatch(text)
    if not found:
        raise SourceError(f"{text} does not have the form hf://owner/repo/path/to/file.safetensors")
    owner, repo, early, path, late = found.groups()
    location = HubLocation(f"{owner}/{repo}", (path or "").strip("/"), late or early)
    suffix = Path(location.path).suffix
    if not location.is_file and suffix in (".bin", ".ckpt", ".pt", ".pth", ".json", ".md"):
        raise SourceError(
            f"{text} must be a .safetensors or .gguf file, an .index.json or a folder"
        )
    return location


def fetch_from_hub(text: str, cache: Path | None = None) -> Path:
    """Return the local path of a file, index or folder on the Hub. Fetch it if needed.

    Args:
        text: a location in the form of `parse_hub_location`.
        cache: the cache folder of huggingface_hub; None means its default (``HF_HOME``).

    Raises:
        SourceError: huggingface_hub is not installed, or the file cannot be fetched.
    """
    location = parse_hub_location(text)
    try:
        import huggingface_hub  # noqa: F401 - check for it before anything is fetched
    except ImportError as error:
        raise SourceError(
            f"{text}: files on the Hub need huggingface_hub; run 'pip install huggingface_hub'"
        ) from error
    try:
        if not location.is_file:
            return _fetch_folder(location, cache)
        path = _fetch_file(location, location.path, cache)
        if location.path.endswith(_INDEX):
            _fetch_shards(location, path, cache)
        return path
    # All errors of the library are of these classes: HTTP and files OSError, names ValueError.
    except (OSError, ValueError) as error:
        raise SourceError(f"cannot fetch {text}: {_first_lines(error)}") from error


def _fetch_file(location: HubLocation, path: str, cache: Path | None) -> Path:
    from huggingface_hub import hf_hub_download

    fetched = hf_hub_download(location.repo, path, revision=location.revision, cache_dir=cache)
    return Path(fetched)


def _fetch_shards(location: HubLocation, index: Path, cache: Path | None) -> None:
    """Fetch the shards that an index lists. Opening the index reports what is wrong with it."""
    try:
        names = sorted(set(read_json(index, unique_names=True)["weight_map"].values()))
    except (KeyError, TypeError, AttributeError):
        return
    folder, slash, _ = location.path.rpartition("/")
    for name in names:
        _fetch_file(location, f"{folder}{slash}{name}", cache)


def _fetch_folder(location: HubLocation, cache: Path | None) -> Path:
    from huggingface_hub import snapshot_download

    inside = f"{location.path}/" if location.path else ""
    fetched = snapshot_download(
        location.repo,
        revision=location.revision,
        cache_dir=cache,
        allow_patterns=[f"{inside}*.safetensors", f"{inside}*.json"],
        ignore_patterns=[f"{inside}*/*"],  # in these patterns, * crosses folders
    )
    folder = Path(fetched, location.path)
    if not folder.is_dir():
        raise SourceError(f"{location.repo} on the Hub has no folder {location.path}")
    return folder


def _first_lines(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:3]) or type(error).__name__
