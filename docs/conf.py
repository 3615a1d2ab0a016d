"""How the pages are built: `sphinx-build -W --keep-going -b html docs build/docs`."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

project = "mlp_jax"
html_title = "mlp_jax"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
html_theme = "furo"
html_show_copyright = False
html_static_path = ["static"]
html_css_files = ["wider.css"]

# Sections have the anchors that code hosts give them, so that links work in both places.
myst_heading_anchors = 3

# A name in backticks becomes a link where there is a page for it, and is code where there is none.
default_role = "py:obj"
napoleon_google_docstring = False
napoleon_use_rtype = False
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
add_module_names = False
maximum_signature_line_length = 88

# What means something to reStructuredText and is plain text in the docstrings: |g|, 8 P**2, (*axes, record).
_MARKUP = re.compile(r"[*|]|_(?=\W|$)")


def as_plain_text(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Read docstrings as they are written: plain text, code in single backticks, indented blocks as they stand."""
    # Napoleon would take what stands before a colon in the first line of a property for its type: begin with a comment.
    lines[:] = [*(("..", "") if what == "property" else ()), *_translated(lines)]


def _translated(lines: list[str]) -> Iterator[str]:
    code = example = after_blank = False
    text_indent, block_indent = 0, math.inf
    for line in lines:
        stripped = line.lstrip()
        indent = len(line) - len(stripped)
        if not stripped:
            example, after_blank = False, True
            yield line
            continue
        example = example or stripped.startswith(">>>")
        block_indent = block_indent if indent >= block_indent else math.inf
        if after_blank and not example and text_indent + 4 <= indent < block_indent:
            block_indent = indent
            yield from (" " * text_indent + "::", "")
        after_blank = False
        if example or indent >= block_indent:
            yield line
            continue
        text_indent = indent
        parts = line.split("`")
        for place, part in enumerate(parts):
            parts[place] = part if code else _MARKUP.sub(r"\\\g<0>", part)
            code = code != (place < len(parts) - 1)
        yield "`".join(parts)


def without_tuple_fields(app: Any, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """Leave out the fields of named tuples: the docstring of the class describes them."""
    return True if type(obj).__name__ == "_tuplegetter" else None


def within_package(app: Any, env: Any, node: Any, contnode: Any) -> Any:
    """Resolve `curvature.inertia` as docstrings write it: modules are the namespaces."""
    if node.get("refdomain") != "py":
        return None
    target = f"mlp_jax.{node['reftarget']}"
    return env.get_domain("py").resolve_xref(env, node["refdoc"], app.builder, "obj", target, node, contnode)


def setup(app: Any) -> None:
    """Connect all, the first before napoleon parses docstrings."""
    app.connect("autodoc-process-docstring", as_plain_text, priority=400)
    app.connect("autodoc-skip-member", without_tuple_fields)
    app.connect("missing-reference", within_package)
