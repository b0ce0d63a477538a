"""The viewer's page: with a server, or as one file that needs neither server nor network."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

from markupsafe import Markup

from synbrain.errors import SynBrainError
from synbrain.viewer.source import Source

HERE = files("synbrain.viewer")


@cache
def bundle(name: str) -> str:
    """A file of the built viewer: viewer.js or viewer.css.

    Raises:
        SynBrainError: where it was not built.
    """
    path = HERE / "static" / name
    if not path.is_file():
        raise SynBrainError(f"the viewer was not built ({name} is missing)", "run `make viewer`")
    return path.read_text(encoding="utf-8")


def as_script_data(content: Any) -> Markup:
    """JSON that may stand inside a script element: no ``<`` is left in it."""
    return Markup(json.dumps(content, allow_nan=False).replace("<", "\\u003c"))


def environment() -> Any:
    """Templates of this room; text is escaped."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    def load(name: str) -> str:
        return (HERE / name).read_text(encoding="utf-8")

    return Environment(
        loader=FunctionLoader(load), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )


def page(data: dict[str, Any], *, inline: bool) -> str:
    """The page around what :meth:`Source.head` gave and at least a first response.

    Args:
        data: the head with "first" (and "responses" in a file of its own).
        inline: all in one file, else with the server's ``viewer.js`` and ``viewer.css``.
    """
    html: str = environment().get_template("page.html").render(
        title=data["title"], lead=data["lead"], inline=inline, data=as_script_data(data),
        css=Markup(bundle("viewer.css")), js=Markup(bundle("viewer.js")),
    )  # fmt: skip
    return html


def exported(source: Source, n_images: int) -> dict[str, Any]:
    """Head and responses to the first ``n_images`` test images, for a page without a server.

    Raises:
        SynBrainError: without a dataset there is nothing to show.
    """
    if source.dataset is None or not len(source.test_rows):
        raise SynBrainError("a page without a server needs pictures", "give a dataset: view RUN DATA")
    head = source.head("file")
    responses = [source.of_test_image(i) for i in range(min(n_images, len(source.test_rows)))]
    return head | {
        "images": head["images"][: len(responses)], "responses": responses, "first": responses[0],
    }  # fmt: skip
