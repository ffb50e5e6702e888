"""One page with everything: no script, nothing fetched, pictures inside; reads on a phone and prints on A4."""

import base64
import html
from collections.abc import Sequence
from pathlib import Path

from fgclep.evaluation.report_table import Table

_STYLE = """
:root { --ink: #1a1a1a; --soft: #5c5c5c; --line: #d5d5d5; --shade: #f5f5f2; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 72rem; padding: 1.5rem; color: var(--ink); background: #fff;
  font: 16px/1.5 system-ui, "Segoe UI", Helvetica, Arial, sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .5rem; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .3rem; }
p, li { max-width: 46rem; }
p.lead, figcaption, dd, ol.notes, footer { color: var(--soft); }
nav ul { columns: 2 20rem; padding-left: 1.1rem; }
a { color: #00558a; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; margin: 1rem 0; }
dt { font-weight: 600; } dd { margin: 0; overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; margin: .6rem 0; }
th, td { padding: .25rem .6rem; text-align: right; vertical-align: top; border-bottom: 1px solid var(--line); }
th:first-child, .words { text-align: left; } thead th { border-bottom: 2px solid var(--ink); vertical-align: bottom; }
tbody th { font-weight: 400; max-width: 22rem; } tr.published { color: var(--soft); background: var(--shade); }
td.words { white-space: nowrap; }
td small { white-space: nowrap; color: var(--soft); } sup { font-size: .65rem; margin-left: .1rem; }
ol.notes { font-size: .8rem; padding-left: 1.4rem; }
figure { margin: 1.5rem 0; } figure img { width: 100%; max-width: 56rem; height: auto; }
.problem { border-left: 4px solid #d55e00; padding: .3rem .8rem; background: var(--shade); }
@media print {
  @page { size: A4; margin: 14mm; }
  body { font-size: 10pt; padding: 0; max-width: none; } nav { display: none; } a { color: inherit; }
  table { font-size: 7.5pt; } .wide { overflow: visible; } h2, figcaption { break-after: avoid; }
  tr, figure { break-inside: avoid; } figure img { max-height: 240mm; object-fit: contain; object-position: left; }
}
"""


def page(
    title: str,
    facts: Sequence[tuple[str, str]],
    tables: Sequence[Table],
    figures: Sequence[tuple[str, Path]],
    problems: Sequence[str],
) -> str:
    """Return the page.

    Args:
        title: its heading.
        facts: name and value of what must be known, such as data and versions.
        tables: in order.
        figures: caption and SVG file.
        problems: what could not be done, and why.
    """
    sections = [(table.name, table.title) for table in tables]
    contents = "".join(f'<li><a href="#{name}">{html.escape(text)}</a></li>' for name, text in sections)
    contents += '<li><a href="#figures">Figures</a></li>' if figures else ""
    told = "".join(f"<dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd>" for name, value in facts)
    wrong = "".join(f"<p class=problem>Not done: {html.escape(problem)}</p>" for problem in problems)
    drawn = "".join(_figure(caption, path) for caption, path in figures)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{_STYLE}</style></head>\n<body>\n"
        f"<h1>{html.escape(title)}</h1>\n<dl>{told}</dl>\n{wrong}\n<nav><ul>{contents}</ul></nav>\n"
        + "".join(_section(table) for table in tables)
        + (f'<h2 id="figures">Figures</h2>\n{drawn}' if figures else "")
        + "<footer><p>For education and research, not for diagnosis.</p></footer>\n</body></html>\n"
    )


def _section(table: Table) -> str:
    return (
        f'<section><h2 id="{table.name}">{html.escape(table.title)}</h2>\n<p class=lead>{html.escape(table.lead)}</p>\n'
        f"{table.to_html()}</section>\n"
    )


def _figure(caption: str, path: Path) -> str:
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    text = html.escape(caption, quote=True)
    return (
        f'<figure><img alt="{text}" src="data:image/svg+xml;base64,{data}"><figcaption>{text}</figcaption></figure>\n'
    )
