"""The report of a run: one HTML file without scripts: question, conclusion, figures, tables and settings."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

# The page shows this many rows of a table; the CSV beside it has all of them.
_ROWS = 40

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 66rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: 0; } h2 { font-size: 1.15rem; margin-top: 2rem; }
.question { color: #555; font-size: 1.15rem; margin-top: .2rem; }
.found { border-left: 4px solid #0072B2; padding: .3rem 1rem; background: #f4f7fa; }
figure { margin: 1rem 0; } img { max-width: 100%; } figcaption, small { color: #555; }
.table { overflow-x: auto; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
th, td { padding: .15rem .6rem; border-bottom: 1px solid #ddd; text-align: right; white-space: nowrap; }
thead th { white-space: normal; vertical-align: bottom; }
table.facts th, table.facts td { text-align: left; white-space: normal; }
"""


def page(
    name: str,
    question: str,
    conclusion: str,
    facts: Mapping[str, Any],
    tables: Mapping[str, pd.DataFrame],
    figures: Mapping[str, bytes],
) -> str:
    """Return the page as HTML.

    `facts` is the content of settings.json: `settings` and `versions` are mappings, the others single values.
    `figures` are the bytes of PNG and GIF files by name, which are embedded. NAME.csv beside the page has all rows of a
    table.
    """
    parts = [
        f"<h1>{_text(name)}</h1><p class=question>{_text(question)}</p><p class=found>{_lines(conclusion)}</p>",
        *(_figure(name, drawn) for name, drawn in figures.items()),
        # Short tables come first: they summarise the long ones.
        *(_table(title, frame) for title, frame in sorted(tables.items(), key=lambda item: len(item[1]) > _ROWS)),
        "<h2>Settings and versions</h2>",
        "<small>As given: --quick computes less.</small>" if facts.get("settings", {}).get("quick") else "",
        _facts({**facts.get("settings", {}), **{k: v for k, v in facts.items() if not isinstance(v, Mapping)}}),
        _facts(facts.get("versions", {})),
    ]
    head = f'<meta charset="utf-8"><title>{_text(name)}</title><style>{_STYLE}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>\n{chr(10).join(parts)}\n</body></html>\n'


def _text(value: object) -> str:
    return html.escape(str(value))


def _lines(text: str) -> str:
    # One sentence a line.
    return re.sub(r"\n|(?<=\.) (?=[A-Z])", "<br>", _text(text))


def _figure(name: str, drawn: bytes) -> str:
    title, _, kind = name.rpartition(".")
    source = f"data:image/{kind};base64,{base64.b64encode(drawn).decode()}"
    return f'<figure><img src="{source}" alt="{_text(title)}"><figcaption>{_text(name)}</figcaption></figure>'


def _table(title: str, frame: pd.DataFrame) -> str:
    first = frame.head(_ROWS)
    # pandas writes its own missing value, <NA>, whatever na_rep is.
    first = first.astype(object).where(first.notna(), np.nan)
    shown = first.to_html(index=False, border=0, float_format="{:.5g}".format, na_rep="")
    size = f"{len(frame)} rows" if len(frame) <= _ROWS else f"the first {_ROWS} of {len(frame)} rows"
    below = f"<small>{size} of {_text(title)}.csv</small>"
    return f"<h2>{_text(title.replace('_', ' '))}</h2><div class=table>{shown}</div>{below}"


def _facts(facts: Mapping[str, Any]) -> str:
    rows = "".join(f"<tr><th>{_text(name)}</th><td>{_text(value)}</td></tr>" for name, value in facts.items())
    return f"<table class=facts>{rows}</table>"
