"""Pieces of a report page: one file, nothing loaded from elsewhere, readable on a phone and in the dark."""

import base64
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

STYLE = """
:root { color-scheme: light dark; --ink: #1a1d21; --soft: #5b6470; --paper: #ffffff; --card: #f4f6f8; --line: #dde2e8;
  --accent: #0072b2; --good: #00805c; --bad: #b84a00; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8eaed; --soft: #a0a8b3; --paper: #15181c; --card: #1f242a;
  --line: #343b44; --accent: #6cb8e8; --good: #4fc9a4; --bad: #ff9a5c; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 66rem; padding: 1.25rem 1rem 4rem; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: .5rem 0 .25rem; }
h2 { font-size: 1.2rem; margin: 2.6rem 0 .5rem; padding-top: .8rem; border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.4rem 0 .4rem; }
p { max-width: 46rem; margin: .5rem 0; }
.soft { color: var(--soft); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.9rem, 1fr)); gap: .75rem; margin: 1rem 0; }
.tile { background: var(--card); border-radius: .6rem; padding: .8rem .9rem; }
.tile b { display: block; font-size: 1.4rem; line-height: 1.2;
  font-variant-numeric: tabular-nums; white-space: nowrap; }
.tile span { color: var(--soft); font-size: .86rem; }
.good { color: var(--good); } .bad { color: var(--bad); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; margin: .6rem 0; }
th, td { padding: .3rem .75rem .3rem 0; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
th:last-child, td:last-child { padding-right: 0; }
td.part { padding-left: 1.2rem; }
th { color: var(--soft); font-weight: 600; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); gap: 1rem; }
.shots { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: .75rem; }
@media (min-width: 60rem) { .shots { grid-template-columns: repeat(4, minmax(0, 1fr)); } }
figure { margin: 0; }
figure img { display: block; width: 100%; height: auto; border-radius: .5rem; border: 1px solid var(--line); }
figure img { background: #fff; }
figcaption { color: var(--soft); font-size: .84rem; padding: .3rem 0; overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: .3rem 1rem; margin: .6rem 0;
  font-size: .9rem; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
code { background: var(--card); border-radius: .3rem; padding: .1rem .35rem; font-size: .88em; }
pre { background: var(--card); border-radius: .6rem; padding: .8rem; white-space: pre-wrap; overflow-wrap: anywhere;
  font-size: .84rem; }
pre code { padding: 0; background: none; }
@media (max-width: 30rem) {
  th, td { padding: .25rem .4rem .25rem 0; }
  th:first-child, td:first-child { white-space: normal; }
  td.part { padding-left: .6rem; }
  dl { grid-template-columns: minmax(0, 1fr); gap: 0; } dd { margin-bottom: .4rem; }
}
"""


@dataclass(frozen=True)
class Tile:
    """A number to see first.

    Attributes:
        value: The number with its unit.
        label: What it is.
        tone: "good", "bad" or "" for neither.
    """

    value: str
    label: str
    tone: str = ""


@dataclass(frozen=True)
class Picture:
    """An image in the page.

    Attributes:
        data: Bytes of a PNG or JPEG file.
        caption: What is seen.
        alternative: The same for those who do not see it; the caption if empty.
    """

    data: bytes
    caption: str
    alternative: str = ""

    @classmethod
    def read(cls, path: Path, caption: str) -> "Picture":
        """Takes an image file."""
        return cls(path.read_bytes(), caption)


def page(title: str, subtitle: str, sections: Sequence[str]) -> str:
    """A whole page.

    Args:
        title: Heading; plain text.
        subtitle: A line below it; plain text.
        sections: What `section` returned.
    """
    body = "\n".join(sections)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f'<h1>{escape(title)}</h1>\n<p class="soft">{escape(subtitle)}</p>\n{body}\n</body>\n</html>\n'
    )


def section(heading: str, *parts: str) -> str:
    """A heading and what is under it."""
    return f"<section>\n<h2>{escape(heading)}</h2>\n" + "\n".join(part for part in parts if part) + "\n</section>"


def subheading(text: str) -> str:
    """A smaller heading."""
    return f"<h3>{escape(text)}</h3>"


def paragraph(text: str, *, soft: bool = False) -> str:
    """A paragraph of plain text."""
    style = ' class="soft"' if soft else ""
    return f"<p{style}>{escape(text)}</p>"


def tiles(items: Sequence[Tile]) -> str:
    """Numbers side by side."""
    cells = (
        f'<div class="tile"><b class="{escape(item.tone)}">{escape(item.value)}</b>'
        f"<span>{escape(item.label)}</span></div>"
        for item in items
    )
    return '<div class="tiles">' + "".join(cells) + "</div>"


def table(headers: Sequence[str], rows: Sequence[Sequence[object]], *, parts: Collection[object] = ()) -> str:
    """A table; the first column to the left, the others to the right.

    Args:
        headers: Heads of the columns.
        rows: Cells.
        parts: First cells of the rows that are part of one above them; they are indented.
    """
    head = "".join(f"<th>{escape(header)}</th>" for header in headers)
    indented = ' class="part"'
    body = "".join(
        f"<tr><td{indented if first in parts else ''}>{escape(str(first))}</td>"
        + "".join(f"<td>{escape(str(cell))}</td>" for cell in others)
        + "</tr>"
        for first, *others in rows
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def facts(items: Sequence[tuple[str, str]]) -> str:
    """Names and what they stand for, which may be long: it wraps."""
    return "<dl>" + "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in items) + "</dl>"


def pictures(items: Sequence[Picture], *, small: bool = False) -> str:
    """Images side by side.

    Args:
        items: The images.
        small: Whether they are samples, more of which fit beside each other than of plots.
    """
    cells = []
    for item in items:
        kind = "png" if item.data.startswith(b"\x89PNG") else "jpeg"
        source = f"data:image/{kind};base64,{base64.b64encode(item.data).decode('ascii')}"
        alternative = escape(item.alternative or item.caption)
        cells.append(
            f'<figure><img src="{source}" alt="{alternative}" loading="lazy">'
            f"<figcaption>{escape(item.caption)}</figcaption></figure>"
        )
    style = "shots" if small else "figures"
    return f'<div class="{style}">' + "".join(cells) + "</div>"


def commands(lines: Sequence[str]) -> str:
    """Command lines to copy."""
    return f"<pre><code>{escape(chr(10).join(lines))}</code></pre>"
