"""What the pack saves for the user in ComfyUI's output folder: calibrations, recipes and so on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import folder_paths

from ...quant.errors import FileError
from ...quant.files.write import check_target, make_folder
from .names import free_name, normal, quoted, why_not_name
from .written import WRITTEN


@dataclass(frozen=True)
class ArtefactFolder:
    """One kind of artefact: a folder of files that the user names, all with one suffix."""

    kind: str
    folder: str
    suffix: str

    def names(self) -> list[str]:
        """Return the names of the saved files."""
        return sorted(path.stem for path in self.root().glob(f"*{self.suffix}"))

    def newest(self) -> list[Path]:
        """Return the saved files, the newest first."""
        files = self.root().glob(f"*{self.suffix}")
        return sorted(files, key=lambda path: path.stat().st_mtime, reverse=True)

    def path(self, name: str) -> Path:
        """Return the file of this name.

        Raises:
            ValueError: the name is empty or not a plain file name.
        """
        problem = why_not_name(name)
        if problem:
            raise ValueError(
                f"{quoted(name)} is not a valid name for a {self.kind}: {problem}; use letters and "
                "digits"
            )
        path = self.root() / f"{name}{self.suffix}"
        return path if path.exists() else path.with_name(f"{normal(name)}{self.suffix}")

    def modified(self, name: str) -> float:
        """Return when the file last changed, for ``fingerprint_inputs``."""
        return self.path(name).stat().st_mtime

    def check_new(self, name: Any, *, optional: bool = True) -> bool | str:
        """Return True if such a file can be written, else why not, for ``validate_inputs``.

        ComfyUI passes a linked input as None, and the inputs of list nodes in a list. With
        ``optional``, an empty name means that nothing is saved.
        """
        name = name[0] if isinstance(name, list) else name
        try:
            if name is not None and not (optional and not name):
                check_target(free_name(self.path(name)), overwrite=False)
        except (ValueError, FileError) as error:
            return str(error)
        return True

    def check_saved(self, name: str | None) -> bool | str:
        """Return True if a file of this name exists, else why not, for ``validate_inputs``."""
        try:
            if name is None or self.path(name).exists():
                return True
        except (ValueError, FileError) as error:
            return str(error)
        return f"{self.kind} {quoted(name)} no longer exists; refresh the list"

    def save(
        self, name: str, is_same: Callable[[Path], bool], write: Callable[[Path], object]
    ) -> list[str]:
        """Write a file of this name; add a number if a file with other content has the name.

        Args:
            name: the name; nothing is saved if it is empty.
            is_same: returns whether an existing file already has this content.
            write: writes the file.

        Returns:
            a line for the report that names the file, or an empty list.
        """
        if not name:
            return []
        path = self.path(name)
        if not (path.exists() and is_same(path)):
            path = free_name(path)
            write(path)
        self.remember(name, path)
        return [f"saved as {path.stem}"]

    def remember(self, name: str, path: Path) -> None:
        """Remember the file that was saved under this name, for `times_lost`."""
        WRITTEN.add((self.kind, name), path)

    def times_lost(self, name: Any) -> int:
        """Return how often a file saved under this name was deleted, for ``fingerprint_inputs``.

        ComfyUI passes the inputs of list nodes in a list.
        """
        return WRITTEN.times_lost((self.kind, name[0] if isinstance(name, list) else name))

    def root(self) -> Path:
        """Return the folder, made if it is missing."""
        root = Path(folder_paths.get_output_directory(), "nvfp4_foundry", self.folder)
        return make_folder(root)


CALIBRATIONS = ArtefactFolder("calibration", "calibrations", ".safetensors")
SENSITIVITIES = ArtefactFolder("sensitivity", "sensitivities", ".json")
RECIPES = ArtefactFolder("recipe", "recipes", ".json")
PROBES = ArtefactFolder("probe", "probes", ".json")
INPUT_SCALES = ArtefactFolder("set of input scales", "input_scales", ".json")
