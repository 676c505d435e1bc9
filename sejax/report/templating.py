"""The templates of the pages and their stylesheet."""

from functools import cache
from importlib import resources

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup


def style() -> Markup:
    """Returns the stylesheet, which stands inside of a page."""
    return Markup(resources.files("sejax.report").joinpath("style.css").read_text(encoding="utf-8"))


@cache
def template(name: str) -> Template:
    """Returns the template of that name."""
    environment = Environment(
        loader=PackageLoader("sejax.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(name)
