"""How Sphinx builds the documentation: `make docs` writes it to build/docs."""

import sys
from pathlib import Path

from hemascope import __version__
from hemascope.core.errors import RESEARCH_USE_ONLY

sys.path.append(str(Path(__file__).parent))

project, author, copyright = "hemascope", "The hemascope team", "2026, the hemascope team"  # noqa: A001 - Sphinx's name
version = release = __version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "command_reference"]
exclude_patterns = ["images"]

html_theme = "furo"
html_title = f"hemascope {release}"
html_theme_options = {
    "announcement": RESEARCH_USE_ONLY,
    "source_repository": "https://github.com/hemascope/hemascope/",
    "source_branch": "main",
    "source_directory": "docs/",
}

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # a test runs the notebook; its stored outputs are what it printed

default_role = "literal"  # docstrings put code between single backquotes
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_type_aliases = {"Source": "Source", "Images": "Images", "Read": "Read"}
python_use_unqualified_type_names = True
# Built offline: the types of other libraries are named, not linked.
nitpick_ignore_regex = [("py:.*", r"(?!hemascope\.).*"), ("py:.*", r"hemascope\.settings\..*")]
