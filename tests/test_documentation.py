"""Pages: examples run and print what is shown, links lead to files and sections, and no module is missing."""

import importlib
import pathlib
import re
import runpy
import sys
import types

import jax
import pytest

import mlp_jax

ROOT = pathlib.Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.py"))
MODULES = sorted(p.stem for p in (ROOT / "mlp_jax").glob("[!_]*") if p.suffix == ".py" or (p / "__init__.py").exists())


def fences(text):
    """Yield the language, code and line of each fence, and whether there is no text between it and the one before."""
    end = 0
    for match in re.finditer(r"^```(\S*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        yield match[1], match[2], text[: match.start()].count("\n") + 1, not text[end : match.start()].strip()
        end = match.end()


def prose(path):
    """Return the Markdown of a page, or of the Markdown cells of a notebook's source, without code."""
    text = path.read_text()
    if path.suffix == ".py":
        cells = [cell for cell in re.split(r"^# %%", text, flags=re.MULTILINE) if cell.startswith(" [markdown]")]
        text = "\n".join(line.removeprefix("#").removeprefix(" ") for cell in cells for line in cell.splitlines()[1:])
    return re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)


def name_of(path):
    return str(path.relative_to(ROOT))


_NUMBER = re.compile(r"-?\d+\.\d*(?:e[-+]\d+)?|\d+e[-+]\d+")


def require_alike(printed, shown):
    """Compare words and integers exactly, and fractions to 5 %; numbers with an exponent are rounding."""
    assert _NUMBER.sub("#", printed).split() == _NUMBER.sub("#", shown).split()
    for ours, theirs in zip(_NUMBER.findall(printed), _NUMBER.findall(shown), strict=True):
        if "e" not in ours + theirs:
            assert float(ours) == pytest.approx(float(theirs), rel=0.05, abs=2e-3)


EXAMPLES = [page for page in PAGES if "```python\n" in page.read_text()]


@pytest.mark.slow
@pytest.mark.implicit_promotion  # as a reader runs them
@pytest.mark.parametrize("page", EXAMPLES, ids=name_of)
def test_every_example_runs_and_prints_what_the_page_shows(page, tmp_path, monkeypatch, capsys):
    module = types.ModuleType(page.stem)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.chdir(tmp_path)
    for language, code, line, follows in fences(page.read_text()):
        if language == "python":
            exec(compile("\n" * line + code, str(page), "exec"), module.__dict__)
            printed = capsys.readouterr().out
        elif language == "text" and follows:
            require_alike(printed, code)
    assert not jax.config.jax_enable_x64


def slugs(path):
    """Return the anchors of a page's sections, as code hosts make them."""
    titles = re.findall(r"^#+ (.+)$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("path", [*PAGES, ROOT / "CHANGELOG.md", *NOTEBOOKS], ids=name_of)
def test_every_relative_link_leads_to_a_file_and_every_anchor_to_a_section(path):
    text = re.sub(r"`[^`]*`", "", prose(path))
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", link):
            continue
        place, _, anchor = link.partition("#")
        target = (path.parent / place).resolve() if place else path
        assert target.exists(), f"{name_of(path)} links to {link}, expected a file"
        assert target.is_relative_to(ROOT)
        if anchor:
            assert anchor in slugs(target), f"{name_of(path)} links to {link}, expected one of {sorted(slugs(target))}"


def test_the_docstring_of_the_package_lists_every_module():
    assert set(re.findall(r"^- `(\w+)`:", mlp_jax.__doc__, re.MULTILINE)) == set(MODULES)


@pytest.mark.parametrize("module", MODULES)
def test_every_public_module_has_a_page_made_from_its_docstrings(module):
    page = ROOT / "docs" / "api" / f"{module}.md"
    assert page.exists(), f"docs/api: got no page for {module}, expected {page.name}"
    assert f".. automodule:: mlp_jax.{module}\n   :members:\n" in page.read_text()
    assert importlib.import_module(f"mlp_jax.{module}").__doc__


def test_every_page_of_the_reference_is_in_its_list_of_contents():
    listed = " ".join(code for _, code, *_ in fences((ROOT / "docs" / "api" / "index.md").read_text())).split()
    pages = {page.stem for page in (ROOT / "docs" / "api").glob("*.md")} - {"index"}
    assert pages <= set(listed)


@pytest.mark.parametrize("path", sorted((ROOT / "docs").glob("*.md")), ids=name_of)
def test_measured_figures_are_those_of_the_page_of_benchmarks(path):
    measured = (ROOT / "docs" / "benchmarks.md").read_text()
    for paragraph in re.split(r"\n\s*\n", prose(path)):
        if paragraph.startswith("Measured"):
            for figure in re.findall(r"\.?\d[\d,.]*\d|\d", paragraph):
                assert figure in measured, f"{name_of(path)} says {figure}, expected a figure of docs/benchmarks.md"


def test_markup_is_escaped_only_outside_of_code_and_indented_blocks_are_kept():
    translated = runpy.run_path(str(ROOT / "docs" / "conf.py"))["_translated"]
    lines = ["|g| and `a | b`, (*axes)", ">>> x**2 | y", "4", "", "Then", "", "    a * b", "", "again *"]
    assert list(translated(lines)) == [
        r"\|g\| and `a | b`, (\*axes)", ">>> x**2 | y", "4", "", "Then", "", "::", "", "    a * b", "", r"again \*",
    ]  # fmt: skip
