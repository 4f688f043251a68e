"""What every page is made with: jinja2 that escapes, the style sheet, and words for figures.

A page is one file. Its own content security policy forbids scripts and the network.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import Any

from edgekit.report import wording


def render_page(template: str, filters: Mapping[str, Callable[..., Any]], **values: Any) -> str:
    """Return a page as text that can be written as UTF-8.

    Args:
        template: File of this room.
        filters: Filters beside those that say figures.
        values: What the template names; strings are escaped, `Markup` is not.
    """
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    room = files("edgekit.report")
    css = room.joinpath("report.css").read_text(encoding="utf-8")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(
        bytes=wording.say_bytes,
        ms=wording.say_ms,
        seconds=wording.say_seconds,
        times=wording.say_times,
        words=lambda key: str(key).replace("_", " "),
        **filters,
    )
    environment.tests["nested"] = lambda value: isinstance(value, (Mapping, list, tuple)) and bool(value)
    page = environment.from_string(room.joinpath(template).read_text(encoding="utf-8")).render(
        css=Markup(css), css_hash=base64.b64encode(hashlib.sha256(css.encode()).digest()).decode(), **values
    )
    return str(page).encode("utf-8", "replace").decode("utf-8")  # a lone surrogate cannot be written
