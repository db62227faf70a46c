"""What the report is made of: tables, charts, pictures and cards, by the macros of report_blocks.html.j2."""

from __future__ import annotations

from typing import Any

import jinja2

ENVIRONMENT = jinja2.Environment(
    loader=jinja2.PackageLoader("latse.paper", "."),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
BLOCKS: Any = ENVIRONMENT.get_template("report_blocks.html.j2").module
