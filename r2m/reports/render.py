"""A page as HTML. All text is escaped by the template, and what a reader could not see in it is shown by its code."""

from __future__ import annotations

from functools import cache
from html import escape
from typing import TYPE_CHECKING, Any
from unicodedata import category

from markupsafe import Markup

from r2m.reports.document import Page, Plot

if TYPE_CHECKING:
    from jinja2 import Template


def render(page: Page) -> str:
    """A whole document, plotly.js inlined once before its plots: it needs no other file and no network."""
    from plotly.offline import get_plotlyjs

    return _template().render(page=page, plotly=Markup(get_plotlyjs()))


def visible(text: str) -> str:
    """Only newlines and tabs act: of what a reader could not see otherwise (control characters, marks that turn the
    direction of text) the code is shown."""
    hidden = {c for c in text if category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") and c not in "\n\t\u200d"}
    for c in hidden:
        text = text.replace(c, f"\\x{ord(c):02x}" if ord(c) < 256 else f"\\u{ord(c):04x}")
    return text


def plain(text: str) -> str:
    """Text for plotly, which reads a few HTML tags."""
    return escape(visible(text))


@cache
def _template() -> Template:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("r2m.reports"), autoescape=True, undefined=StrictUndefined, finalize=_said,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"kind": lambda part: type(part).__name__, "drawn": _drawn}
    return environment.get_template("page.html")


def _said(value: Any) -> Any:
    """What the template says: every text in it, by `finalize`, so that none is forgotten."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _drawn(plot: Plot) -> Markup:
    assert not isinstance(plot.drawing, str)
    html = plot.drawing.to_html(
        full_html=False, include_plotlyjs=False, div_id=f"plot-{plot.key}",
        default_height=plot.drawing.layout.height,
        config={"displaylogo": False, "responsive": True, "displayModeBar": False},
    )  # fmt: skip
    return Markup(html)
