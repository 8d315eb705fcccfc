"""HTML page with the activations of both engines, without external files."""

from __future__ import annotations

import math
from collections.abc import Iterator
from html import escape

from visdeploy_export.proof.layer_report import BOUND, Difference, LayerReport, LayerRow

MARK = "<!doctype html>\n<!-- visdeploy: activations of a failed export -->\n"
"""First lines of every page, by which earlier pages are recognised."""
_STYLE = """
body { font: 14px/1.4 system-ui, sans-serif; margin: 2em auto; max-width: 110em; padding: 0 1em; color: #1b1b1b; }
table { border-collapse: collapse; width: 100%; }
th, td { padding: 2px 8px; text-align: left; vertical-align: top; border-bottom: 1px solid #ddd; }
th { position: sticky; top: 0; background: #f3f3f3; }
td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td.bar { width: 9em; background-repeat: no-repeat; background-position: 0 50%; }
tr.differs td { background-color: #fdecea; }
tr#first td { background-color: #f5b7b1; font-weight: 600; }
code { font-size: 13px; }
.small { color: #666; font-size: 12px; }
"""
_HEAD = ("#", "layer", "operators", "type and shape", "error", "of the largest", "own error, of the largest", "", "")


def layers_page(report: LayerReport, *, title: str) -> str:
    """Return a report as an HTML page.

    Args:
        report: Comparison of the activations.
        title: Name of the model and of the step.
    """
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{_STYLE}</style>'
    rows = "".join(_row(row, first=row is report.first) for row in report.rows)
    columns = "".join(f"<th>{name}</th>" for name in _HEAD)
    table = f"<table><thead><tr>{columns}</tr></thead><tbody>\n{rows}</tbody></table>"
    return f'{MARK}<html lang="en"><head>{head}</head><body>\n{"".join(_top(report, title))}{table}\n</body></html>\n'


def _top(report: LayerReport, title: str) -> Iterator[str]:
    yield f"<h1>{escape(title)}</h1>\n"
    text = escape(f"{str(report)[0].upper()}{str(report)[1:]}.")
    yield f'<p><a href="#first">{text}</a></p>\n' if report.first is not None else f"<p>{text}</p>\n"
    if report.stopped:
        yield f"<p>The comparison ends early: {escape(report.stopped)}.</p>\n"
    yield (
        "<p>Every row is an activation that PyTorch and the engine compute for the same inputs of one step. The "
        "<b>error</b> is the largest difference between them. The <b>own error</b> is that of the layer alone: PyTorch "
        "computes it from the engine's values of its inputs, so errors of earlier layers do not count. Both are also "
        f"shares of the largest value in PyTorch. A layer differs where its own error is more than {BOUND:g}: rounding "
        "to float32 is 6e-8 of a value, and kernels that sum in another order stay within a few of that. Where a value "
        "sums more than 1,700 terms, one rounding for each is allowed. Whole numbers and booleans must be equal; their "
        "share is that of the entries that differ. Bars are logarithmic, from 1e-8 to 1.</p>\n"
    )
    if report.unaligned:
        names = escape(", ".join(report.unaligned))
        yield f'<p class="small">Not in the ONNX graph, and so in no row: {names}.</p>\n'


def _row(row: LayerRow, *, first: bool) -> str:
    kind = ' id="first" class="differs"' if first else ' class="differs"' if row.differs else ""
    layer = f"<code>{escape(row.layer or '(step function)')}</code>"
    if row.includes:
        layer += f'<br><span class="small">with {escape(", ".join(row.includes))}</span>'
    shape = f"{row.dtype} {list(row.shape)}"
    note = row.own.note or row.total.note
    cells = (
        f'<td class="number">{row.order}</td>',
        f'<td>{layer}<br><span class="small">{escape(row.name)}</span></td>',
        f"<td>{escape(row.op)}</td><td>{escape(shape)}</td>",
        f'<td class="number">{row.total.error:.3g}</td><td class="number">{row.total.share:.2e}</td>',
        f'<td class="number">{row.own.share:.2e}</td>{_bar(row.own)}<td>{escape(note)}</td>',
    )
    return f"<tr{kind}>{''.join(cells)}</tr>\n"


def _bar(difference: Difference) -> str:
    share = difference.share
    length = 0.0 if not share else 100.0 if share >= 1 else max(0.0, 100 * (1 + math.log10(share) / 8))
    color = "#c0392b" if share > BOUND else "#7fb3d5"
    fill = f"background-image:linear-gradient({color},{color});background-size:{length:.0f}% 60%"
    return f'<td class="bar" style="{fill}"></td>'
