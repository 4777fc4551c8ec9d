"""The documentation points only at what is there, and names every command."""

import re
from pathlib import Path

import pytest

from flawline.__main__ import COMMANDS

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "runtime/bundle/FORMAT.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(page):
    links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_command_has_a_page():
    assert {path.stem for path in (ROOT / "docs/commands").glob("*.md")} == set(COMMANDS)
