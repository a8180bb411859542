"""The page of a report: its stylesheet, its skeleton and its parts. All text that comes in is HTML already."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import plotly.graph_objects as go

STYLE = """
:root { --ink: #1d2430; --soft: #5b6573; --line: #dfe3e9; --wash: #f5f7f9; --good: #009e73; --bad: #d55e00; --link: #0072b2 }
* { box-sizing: border-box }
body { margin: 0; background: #fff; color: var(--ink); font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif }
main { max-width: 1240px; margin: 0 auto; padding: 34px 28px 60px }
h1 { font-size: 27px; line-height: 1.2; margin: 0 0 4px; letter-spacing: -.01em }
h2 { font-size: 18px; margin: 44px 0 6px; padding-top: 14px; border-top: 1px solid var(--line) }
h3 { font-size: 14.5px; margin: 24px 0 4px }
p { margin: 6px 0; max-width: 115ch }
.meta, .note, figcaption { color: var(--soft); font-size: 13.5px }
.verdict { margin: 22px 0; padding: 16px 20px; background: var(--wash); border-left: 5px solid var(--soft); border-radius: 0 6px 6px 0 }
.verdict.better { border-color: var(--good) }
.verdict.worse { border-color: var(--bad) }
.verdict p:first-child { font-size: 18.5px; font-weight: 600; line-height: 1.4; margin-top: 0 }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(148px, 1fr)); gap: 12px; margin: 18px 0 }
.tile { border: 1px solid var(--line); border-radius: 6px; padding: 10px 14px }
.tile b { display: block; font-size: 21px; font-weight: 600; line-height: 1.3; font-variant-numeric: tabular-nums }
.tile span { color: var(--soft); font-size: 12.5px }
.scroll { overflow-x: auto; margin: 10px 0 }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; min-width: 60% }
th, td { padding: 5px 0 5px 15px; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; vertical-align: baseline }
th { color: var(--soft); font-weight: 600; font-size: 12px; border-bottom: 1.5px solid #b8c0cb; vertical-align: bottom }
th small, td small { display: block; font-weight: 400 }
td small { color: var(--soft); font-size: 11.5px }
th:first-child, td:first-child { padding-left: 10px }
th:last-child, td:last-child { padding-right: 10px }
.text { text-align: left }
.text + .text { padding-left: 24px }
tr.winner td { background: #eaf6f2 }
tr.winner td:first-child { box-shadow: inset 4px 0 var(--good) }
tr.more td { border-color: transparent }
tr.dim td { color: var(--soft) }
.said { white-space: pre-wrap; overflow-wrap: anywhere; min-width: 17em; max-width: 38em; max-height: 16em; overflow-y: auto }
.label { white-space: normal; width: max-content; max-width: 23em }
.dot { display: inline-block; width: 10px; height: 10px; border-radius: 50%; margin-right: 7px }
.better { color: #00775a } .worse { color: #b04a00 }
.verdict.better, .verdict.worse { color: inherit }
figure { margin: 14px 0 26px } figure h3 { margin-bottom: 0 }
.plot { overflow-x: auto; min-width: 0 }
.empty { padding: 14px 18px; background: var(--wash); border-radius: 6px; color: var(--soft) }
.pair { display: grid; grid-template-columns: minmax(0, 3fr) minmax(0, 2fr); gap: 28px }
pre, code { font: 12.5px/1.55 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace }
pre { background: var(--wash); padding: 12px 16px; border-radius: 6px; overflow-x: auto; margin: 8px 0 }
pre.command { white-space: pre-wrap; overflow-wrap: anywhere } pre.command span { white-space: nowrap }
details summary { cursor: pointer; color: var(--link) }
nav { font-size: 13.5px } nav a { color: var(--link); text-decoration: none; margin-right: 16px }
@media (max-width: 820px) { .pair { grid-template-columns: 1fr } main { padding: 20px 14px } }
@media print { nav { display: none } main { max-width: none; padding: 0 } figure, tr, .tile { break-inside: avoid } .scroll { overflow: visible } }
"""  # noqa: E501


def page(title: str, *parts: str) -> str:
    """A whole document, plotly.js inlined once before its plots: it needs no other file and no network."""
    from plotly.offline import get_plotlyjs

    script, body = get_plotlyjs(), "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{STYLE}</style>\n<script>{script}</script>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def section(identifier: str, title: str, *parts: str) -> str:
    return f'<section id="{identifier}">\n<h2>{title}</h2>\n' + "\n".join(parts) + "\n</section>"


def contents(sections: Mapping[str, str]) -> str:
    """Links to sections: identifier -> title."""
    return "<nav>" + "".join(f'<a href="#{key}">{title}</a>' for key, title in sections.items()) + "</nav>"


def verdict(sentences: Sequence[str], finding: str = "") -> str:
    """The headline first. `finding`: "better" or "worse" gives it its colour. Escapes the sentences."""
    inner = "".join(f"<p>{said(sentence)}</p>" for sentence in sentences)
    return f'<div class="verdict {finding}">{inner}</div>'


def tiles(shown: Sequence[tuple[str, str]]) -> str:
    """A number, and what it is, each."""
    each = "".join(f'<div class="tile"><b>{value}</b><span>{what}</span></div>' for value, what in shown)
    return f'<div class="tiles">{each}</div>'


def note(text: str) -> str:
    return f'<p class="note">{text}</p>'


def dot(colour: str | None, ring: bool = False) -> str:
    """An arm's colour before its label; nothing for None. `ring`: of an arm whose line is dashed."""
    style = f"box-shadow: inset 0 0 0 2.5px {colour}" if ring else f"background:{colour}"
    return "" if colour is None else f'<span class="dot" style="{style}"></span>'


def said(text: str | Sequence[Mapping[str, str]]) -> str:
    """What a person or a model said, or the messages of a chat, as HTML. Only newlines and tabs act: of what a reader
    could not see otherwise (control characters, marks that turn the direction of text) the code is shown.
    """
    if not isinstance(text, str):
        text = "\n".join(f"{message.get('role', '')}: {message.get('content', '')}" for message in text)
    hidden = {
        c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") and c not in "\n\t\u200d"
    }
    for c in hidden:
        text = text.replace(c, f"\\x{ord(c):02x}" if ord(c) < 256 else f"\\u{ord(c):04x}")
    return escape(text)


def table(head: list[str], rows: list[tuple[str, list[str]]], text_columns: set[int]) -> str:
    """`rows`: a class and the cells of each. Columns are numbers, on the right, unless they are text."""

    def cells(tag: str, values: list[str]) -> str:
        kinds = [' class="text"' if i in text_columns else "" for i in range(len(values))]
        return "".join(f"<{tag}{kind}>{value}</{tag}>" for kind, value in zip(kinds, values, strict=True))

    body = "\n".join(f'<tr class="{kind}">{cells("td", values)}</tr>' for kind, values in rows)
    top = f"<thead><tr>{cells('th', head)}</tr></thead>"
    return f'<div class="scroll"><table>{top}\n<tbody>{body}</tbody></table></div>'


def plot(key: str, title: str, drawing: go.Figure | str, caption: str = "") -> str:
    """A plotly figure as a part of the page, or the sentence (not yet HTML) that says why there is none.

    Its element is `plot-<key>`; the page needs each key once.
    """
    if isinstance(drawing, str):
        return _figure(title, f'<p class="empty">{escape(drawing)}</p>')
    drawn = drawing.to_html(
        full_html=False,
        include_plotlyjs=False,
        div_id=f"plot-{key}",
        default_height=drawing.layout.height,
        config={"displaylogo": False, "responsive": True, "displayModeBar": False},
    )
    return _figure(title, f'<div class="plot">{drawn}</div>', caption)


def _figure(title: str, inner: str, caption: str = "") -> str:
    return f"<figure><h3>{title}</h3><figcaption>{caption}</figcaption>{inner}</figure>"
