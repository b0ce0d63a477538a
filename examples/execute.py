"""Three examples as notebooks: converted, run from top to bottom, and written with their output.

    python examples/execute.py [--check]

With ``--check`` nothing is written: the notebooks must run, and their code must be that of the scripts.
"""

from __future__ import annotations

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from sphinx_gallery.gen_gallery import DEFAULT_GALLERY_CONF
from sphinx_gallery.notebook import jupyter_notebook
from sphinx_gallery.py_source_parser import split_code_and_text_blocks

HERE = Path(__file__).parent
NAMES = ("plot_1_predict", "plot_3_evaluate", "plot_8_noise_ceilings")


def converted(name: str) -> nbformat.NotebookNode:
    """The notebook of a script, not run yet."""
    _, blocks = split_code_and_text_blocks(str(HERE / f"{name}.py"))
    content = jupyter_notebook(blocks, DEFAULT_GALLERY_CONF, str(HERE))
    notebook = nbformat.from_dict(content)
    inline = "%matplotlib inline\nimport sys\nsys.path.insert(0, '..')  # where shared.py lies"
    notebook.cells.insert(0, nbformat.v4.new_code_cell(inline))
    for number, cell in enumerate(notebook.cells):
        cell["source"] = "".join(cell["source"])
        cell["id"] = f"cell-{number}"  # the same at every run
    return notebook


def main() -> int:
    """Run all; exit code 1 where a kept notebook is not that of its script."""
    check, stale = "--check" in sys.argv[1:], []
    (HERE / "notebooks").mkdir(exist_ok=True)
    for name in NAMES:
        path, notebook = HERE / "notebooks" / f"{name}.ipynb", converted(name)
        sources = [cell["source"] for cell in notebook.cells]
        place = {"metadata": {"path": str(path.parent)}}
        NotebookClient(notebook, timeout=600, resources=place, record_timing=False).execute()
        for cell in notebook.cells:  # warnings and bars name paths of the machine that they ran on
            if cell["cell_type"] == "code":
                cell["outputs"] = [out for out in cell["outputs"] if out.get("name") != "stderr"]
        print(f"{name}: {sum(cell['cell_type'] == 'code' for cell in notebook.cells)} cells ran")
        if not check:
            nbformat.write(notebook, path)
        elif not path.exists() or [c["source"] for c in nbformat.read(path, 4).cells] != sources:
            stale.append(name)
    if stale:
        print(f"{', '.join(stale)}: the script has changed since; run `make notebooks`")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
