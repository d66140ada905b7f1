"""A view as one self-contained HTML file, built from the browser modules of the node pack.

The modules are inlined as ``data:`` URLs in an import map, and their relative specifiers are
rewritten to names of that map. The page needs no network and allows none.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import posixpath
import re
from pathlib import Path

from ..errors import FoundryError
from ..text import printable
from .view import LayerView

#: The browser half of the pack, beside ``quant/`` in a clone, in ComfyUI and where it is installed.
WEB = Path(__file__).parents[2] / "web"
ENTRY = "view/page.js"
_NAMESPACE = "nvfp4/"
# A static import or re-export with a relative specifier, at the start of a line.
_IMPORT = re.compile(
    r"""^(?P<head>[ \t]*(?:import|export)\b(?:[^;"'`()]*?\bfrom)?\s*)(?P<quote>["'])"""
    r"""(?P<specifier>\.{1,2}/[^"'\n]+)(?P=quote)""",
    re.MULTILINE,
)
# In a JSON string, each of these may be an escape. Parsers of HTML then see no markup.
_ESCAPES = str.maketrans({c: f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"})


def render_page(view: LayerView, web: Path = WEB) -> str:
    """Return a self-contained HTML page of a view.

    Raises:
        FoundryError: a browser module of the node pack is missing.
    """
    imports = {
        _NAMESPACE + name: _data_url(source) for name, source in sorted(modules(web).items())
    }
    import_map = json.dumps({"imports": imports})
    start = f'import {{ openPage }} from "{_NAMESPACE}{ENTRY}";\nopenPage();\n'
    policy = (
        f"default-src 'none'; script-src {_hash(import_map)} {_hash(start)} data:; "
        "style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
    return _PAGE.format(
        policy=html.escape(policy),
        title=html.escape(printable(f"NVFP4 Foundry: {view.title}")),
        import_map=import_map,
        data=view.dumps().translate(_ESCAPES),
        start=start,
        text=html.escape(printable(view.text)),
    )


def modules(web: Path = WEB, entry: str = ENTRY) -> dict[str, str]:
    """Return the sources of all modules that an entry imports, by path below ``web``.

    Relative specifiers are rewritten to names of the import map.

    Raises:
        FoundryError: a module is missing.
    """
    found: dict[str, str] = {}
    waiting = [entry]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        source = _read(web, name)
        found[name] = _IMPORT.sub(lambda match, name=name: _renamed(match, name), source)
        waiting += [_resolved(match, name) for match in _IMPORT.finditer(source)]
    return found


def _read(web: Path, name: str) -> str:
    try:
        return (web / name).read_text(encoding="utf-8")
    except OSError as error:
        raise FoundryError(
            f"web/{name} of the node pack is missing, so no HTML page can be made; install the "
            "node pack again"
        ) from error


def _resolved(match: re.Match[str], importer: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(importer), match["specifier"]))


def _renamed(match: re.Match[str], importer: str) -> str:
    quote = match["quote"]
    return f"{match['head']}{quote}{_NAMESPACE}{_resolved(match, importer)}{quote}"


def _data_url(source: str) -> str:
    code = base64.b64encode(source.encode("utf-8")).decode("ascii")
    return f"data:text/javascript;charset=utf-8;base64,{code}"


def _hash(script: str) -> str:
    digest = hashlib.sha256(script.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<script type="importmap">{import_map}</script>
</head><body>
<noscript><pre style="white-space: pre; overflow: auto">{text}</pre></noscript>
<script type="application/json" id="nvfp4-view">{data}</script>
<script type="module">{start}</script>
</body></html>
"""
