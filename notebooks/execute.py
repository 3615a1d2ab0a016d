"""Execute the notebooks, each from its paired source, start to end in a fresh kernel; say how long each took.

    python notebooks/execute.py             executes all, and fails where one fails or a committed .ipynb is stale
    python notebooks/execute.py --write     executes, and writes the .ipynb files with their outputs
    python notebooks/execute.py 01 05       only those whose names begin so

The sources are Python files in jupytext's percent format; edit those.
"""

from __future__ import annotations

import argparse
import base64
import io
import pathlib
import time

import jupytext
import nbclient
import nbformat
import PIL.Image

HERE = pathlib.Path(__file__).parent
# Of one cell; a whole notebook is to take less than this as well.
SECONDS = 60
KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}


def notebook(source: pathlib.Path) -> nbformat.NotebookNode:
    """Return the notebook of a source, without outputs; the same source gives the same file."""
    made = jupytext.read(source)
    made.metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    for number, cell in enumerate(made.cells):
        cell.id, cell.metadata = f"cell-{number}", {}
    return made


def execute(made: nbformat.NotebookNode) -> float:
    """Run all cells in a fresh kernel, outputs in place; return the seconds. A cell that fails raises."""
    began = time.perf_counter()
    nbclient.NotebookClient(made, timeout=SECONDS, resources={"metadata": {"path": str(HERE.parent)}}).execute()
    for cell in made.cells:
        cell.metadata = {}
    return time.perf_counter() - began


def drop_handles(made: nbformat.NotebookNode) -> None:
    """Drop what a drawing call returned, `<Axes: …>` or `Text(…)`, from cells that show a figure, in place."""
    for cell in made.cells:
        outputs = cell.get("outputs", [])
        if any("image/png" in output.get("data", {}) for output in outputs):
            cell.outputs = [o for o in outputs if o.output_type != "execute_result" or set(o.data) != {"text/plain"}]


def shrink_figures(made: nbformat.NotebookNode) -> None:
    """Give every PNG among the outputs a palette of 256 colours, in place: the same to the eye, fewer bytes."""
    for cell in made.cells:
        for output in cell.get("outputs", ()):
            if "image/png" in output.get("data", {}):
                drawn = PIL.Image.open(io.BytesIO(base64.b64decode(output.data["image/png"]))).convert("RGB")
                small = io.BytesIO()
                palette = drawn.quantize(256, PIL.Image.Quantize.MAXCOVERAGE, kmeans=1, dither=PIL.Image.Dither.NONE)
                palette.save(small, "png", optimize=True)
                output.data["image/png"] = base64.b64encode(small.getvalue()).decode()


def is_stale(made: nbformat.NotebookNode, path: pathlib.Path) -> bool:
    """Return whether the committed notebook has other cells than its source."""
    if not path.exists():
        return True
    kept = nbformat.read(path, as_version=4)
    return [(c.cell_type, c.source) for c in kept.cells] != [(c.cell_type, c.source) for c in made.cells]


def main() -> None:
    """Read the command line and execute."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="beginnings of names; all when there are none")
    parser.add_argument("--write", action="store_true", help="write the .ipynb files, with outputs")
    chosen = parser.parse_args()
    stale = []
    for source in sorted(HERE.glob("[0-9]*.py")):
        if chosen.names and not source.name.startswith(tuple(chosen.names)):
            continue
        made, path = notebook(source), source.with_suffix(".ipynb")
        if is_stale(made, path) and not chosen.write:
            stale.append(path.name)
        seconds = execute(made)
        if chosen.write:
            drop_handles(made)
            shrink_figures(made)
            nbformat.write(made, path)
        print(f"{source.stem}: {seconds:.1f} s, {path.stat().st_size / 1000:.0f} kB", flush=True)
    if stale:
        raise SystemExit(f"Other cells than in their sources (run with --write): {', '.join(stale)}")


if __name__ == "__main__":
    main()
