"""One site: guide, examples that are run, reference from docstrings and parser, research notes."""

from __future__ import annotations

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
os.environ.setdefault("MPLBACKEND", "agg")

from command_pages import write_command_page

from synbrain import __version__

write_command_page(HERE / "reference" / "commands.md")

project, author, release = "SynBrain", "The SynBrain developers", __version__
project_copyright = "The SynBrain developers"
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
]
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
exclude_patterns = ["_build", "examples/data", "examples/notebooks"]
default_role = "code"  # `word` in a docstring is code, as in Markdown
nitpicky = False
autodoc_typehints = "description"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
napoleon_use_ivar = True
html_theme = "furo"
html_title = f"SynBrain {release}"
html_copy_source = False
sphinx_gallery_conf = {
    "examples_dirs": str(HERE.parent / "examples"),
    "gallery_dirs": "examples",
    "filename_pattern": "/plot_",
    "ignore_pattern": r"shared\.py|execute\.py",
    "within_subsection_order": "FileNameSortKey",
    "abort_on_example_error": True,
    "remove_config_comments": True,
    "show_memory": False,
    "plot_gallery": os.environ.get("SYNBRAIN_GALLERY", "True"),
    "min_reported_time": 1,
    "copyfile_regex": r".*shared\.py",
    "download_all_examples": False,
}
suppress_warnings = ["config.cache", "toc.not_included"]  # a page may be reached by a link alone
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
