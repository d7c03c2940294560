"""How pages are made: one HTML file without a script or an address to fetch, all of one look."""

from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from hymunet.wording import plural, shortened

REPORT = "hymunet.evaluation/report.html.jinja"  # where the style sheet is


def style_sheet() -> str:
    """The evaluation report's style sheet, so that the pages look alike."""
    return _read(REPORT).partition("<style>")[2].partition("</style>")[0]


def render(template: str, filters: Mapping[str, Any], **values: Any) -> str:
    """The page that `template` makes of `values`; text in them is escaped.

    Args:
        template: Package and file, such as hymunet.evaluation/frame.html.jinja; what it extends
            and imports is named in the same way.
        filters: For the template, by name, beside `shortened`; `plural` is a function there.
        **values: What it shows.
    """
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    environment = Environment(
        loader=FunctionLoader(_read),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["plural"] = plural
    environment.filters["shortened"] = shortened
    environment.filters.update(filters)
    return environment.get_template(template).render(values)


def _read(template: str) -> str:
    package, _, file = template.partition("/")
    return files(package).joinpath(file).read_text("utf-8")
