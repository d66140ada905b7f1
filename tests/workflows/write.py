"""Write the templates and blueprints: ``python -m tests.workflows.write``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.workflows import blueprints, families, tasks
from tests.workflows.graph import to_api
from tests.workflows.layout import to_ui
from tests.workflows.subgraph import to_blueprint

ROOT = Path(__file__).parents[2]
TEMPLATES = (
    tasks.quantize_file,
    tasks.calibrate,
    tasks.measure,
    tasks.compare,
    tasks.sample,
    families.wan_5b,
    families.wan_14b,
    families.qwen_image,
    families.qwen_edit,
    families.flux,
)
BLUEPRINTS = (blueprints.quantize_file, blueprints.calibrate, blueprints.measure)


def written() -> dict[str, str]:
    """Return the text of every file, by its path from the root of the repository."""
    found = {}
    for template in TEMPLATES:
        graph = template()
        found[f"example_workflows/{graph.title}.json"] = _text(to_ui(graph))
        found[f"example_workflows/api/{graph.title}.json"] = _text(to_api(graph))
    for described in BLUEPRINTS:
        blueprint = described()
        found[f"subgraphs/{blueprint.title}.json"] = _text(to_blueprint(blueprint))
    return found


def _text(data: Any) -> str:
    return json.dumps(data, indent=1, ensure_ascii=False) + "\n"


def main() -> None:
    """Write the files and remove those that are no longer described."""
    files = written()
    for folder in sorted({str(Path(name).parent) for name in files}):
        for path in (ROOT / folder).glob("*.json"):
            if path.relative_to(ROOT).as_posix() not in files:
                path.unlink()
    for name, text in files.items():
        path = ROOT / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
