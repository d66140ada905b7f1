"""Report a conversion as an HTML page."""

from __future__ import annotations

import html

from ..conversion.report import ConversionReport
from .conversion import HEADINGS, cells_of, conversion_headline


def conversion_page(report: ConversionReport) -> str:
    """Return a self-contained HTML page."""
    title = html.escape(f"NVFP4 Foundry: {report.target or report.source}")
    head = "".join(f"<th>{html.escape(h)}</th>" for h in HEADINGS)
    body = "\n".join(
        f'<tr class="{html.escape(layer.format)}" title="{html.escape(layer.remarks)}">'
        + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells_of(layer))
        + "</tr>"
        for layer in report.layers
    )
    return _PAGE.format(
        title=title, headline=html.escape(conversion_headline(report)), head=head, body=body
    )


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
:root {{ color-scheme: light dark; font: 14px/1.45 system-ui, sans-serif; }}
body {{ max-width: 85rem; margin: 2rem auto; padding: 0 1rem; }}
pre {{ padding: 1rem; border: 1px solid #8886; border-radius: 6px; white-space: pre-wrap; }}
td {{ white-space: nowrap; }}
table {{ border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }}
th, td {{ padding: .25rem .6rem; border-bottom: 1px solid #8883; text-align: right; }}
th:first-child, td:first-child {{ text-align: left; }}
th {{ position: sticky; top: 0; background: Canvas; }}
tr.keep td, tr.bf16 td, tr.fp16 td, tr.fp32 td {{ opacity: .55; }}
</style></head><body>
<h1>{title}</h1>
<pre>{headline}</pre>
<p>Point at a row to see the reasons for its format, rounding and scale.
Errors are relative to the layer of the source.</p>
<table><thead><tr>{head}</tr></thead><tbody>
{body}
</tbody></table></body></html>
"""
