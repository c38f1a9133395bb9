"""The documentation as a site: these pages, one a method, and the library's docstrings. ``make docs`` builds it."""

import sys
from pathlib import Path

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS))

import pages  # noqa: E402

project, author = "limbeck", "The limbeck developers"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "limbeck"
html_show_sourcelink = html_copy_source = html_show_copyright = False
myst_heading_anchors = 3
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
napoleon_use_rtype = False


def link_to_pages(app, name, source):
    """Results lie elsewhere in the repository than in the site."""
    source[0] = source[0].replace("](../benchmarks/results/", "](generated/results/")


def setup(app):
    pages.write(DOCS / "generated")
    app.connect("source-read", link_to_pages)
