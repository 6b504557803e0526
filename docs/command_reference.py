"""A directive, `commands`, that becomes what `hemascope COMMAND -h` prints, for every command."""

from collections.abc import Iterator
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from typer.main import get_command

from hemascope.cli.app import app

_WIDTH = 84


def pages(
    command: Any, path: tuple[str, ...] = ("hemascope",), parent: Any = None
) -> Iterator[Any]:
    """The words and the help of a command and of all below it."""
    shown = {"terminal_width": _WIDTH, "max_content_width": _WIDTH} | command.context_settings
    context = command.context_class(command, info_name=path[-1], parent=parent, **shown)
    yield " ".join(path), command.get_help(context)
    for name, child in getattr(command, "commands", {}).items():
        yield from pages(child, (*path, name), context)


class Commands(SphinxDirective):
    """A section for each command, which `#hemascope-COMMAND` links to."""

    def run(self) -> list[nodes.Node]:
        """The sections."""
        sections: list[nodes.Node] = []
        for words, text in pages(get_command(app)):
            name = words.replace(" ", "-")
            section = nodes.section("", nodes.title(words, words), names=[name], ids=[name])
            section += nodes.literal_block(text, text, language="text")
            self.state.document.note_explicit_target(section, section)
            sections.append(section)
        return sections


def setup(app: Sphinx) -> dict[str, bool]:
    """Registers the directive."""
    app.add_directive("commands", Commands)
    return {"parallel_read_safe": True}
