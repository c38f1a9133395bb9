"""The page: its sections from top to bottom, in one HTML file with everything inside."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from importlib.resources import files

import vl_convert
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from limbeck.commands.report import classes, cost, curves, features, origin, verdict
from limbeck.commands.report.runs import Comparison

BUNDLE = "window.vegaEmbed = vegaEmbed;"
SECTIONS = (
    verdict.section,
    curves.section,
    origin.matches,
    features.pictures,
    features.similarity,
    classes.section,
    cost.section,
    origin.origin,
)


def page_of(comparison: Comparison) -> str:
    """The page as HTML."""
    environment = Environment(
        loader=PackageLoader("limbeck.commands.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.filters["embedded"] = embedded
    names = list(dict.fromkeys(way.name for way in comparison.ways))
    return environment.get_template("page.html.j2").render(
        title=", ".join(names),
        verdict=verdict.verdict(comparison),
        states=[run.state for run in comparison.runs if run.state],
        sections=[section(comparison) for section in SECTIONS],
        style=Markup(read("page.css")),
        script=Markup(read("page.js")),
        bundle=bundle(),
        version=version("limbeck"),
        made=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    )


@cache
def bundle() -> Markup:
    """Vega, Vega-Lite and Vega-Embed."""
    return Markup(vl_convert.javascript_bundle(BUNDLE).replace("</script", "<\\/script"))


def read(name: str) -> str:
    return (files("limbeck.commands.report") / name).read_text()


def embedded(value: object) -> Markup:
    """JSON that may stand in a script element."""
    return Markup(json.dumps(value).replace("<", "\\u003c"))
