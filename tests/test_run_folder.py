"""A run folder holds a whole run, its page shows it, and nothing is overwritten."""

import ast
import base64
import dataclasses
import io
import json
import pathlib
import re
import runpy
import sys

import matplotlib.figure
import matplotlib.image
import numpy as np
import pandas as pd
import PIL.Image
import PIL.ImageColor
import pytest

import experiments
from experiments._shared import command_line, tables
from experiments._shared.questions import questions
from experiments._shared.run_folder import RunFolder
from mlp_jax import plots


@dataclasses.dataclass(frozen=True)
class Settings:
    seed: int = 3
    note: str = "<b>bold</b>"


def test_the_page_holds_question_conclusion_tables_figures_and_settings(tmp_path, capsys):
    folder = RunFolder("taylor", Settings(), tmp_path / "one")
    figure = matplotlib.figure.Figure(figsize=(2, 1))
    figure.subplots().plot([0, 1])
    folder.figure("curve", figure)
    trail = plots.descents(figure.axes[0], [[[0, 0], [1, 1]]], frames=3)
    folder.animation("trail", trail)
    folder.table("numbers", pd.DataFrame({"n": range(100), "half": [n / 2 for n in range(100)]}))
    folder.conclude("Found: a < b.")
    page, printed = (folder.path / "report.html").read_text(), capsys.readouterr().out
    question = questions()["taylor"].replace("'", "&#x27;")
    first_rows = "the first 40 of 100 rows of numbers.csv"
    for words in (question, "Found: a &lt; b.", "&lt;b&gt;bold&lt;/b&gt;", first_rows):
        assert words in page
    assert "<b>" not in page
    rows = re.findall(r"<td>(\d+)</td>\s*<td>([\d.]+)</td>", page)
    assert [(int(n), float(half)) for n, half in rows] == [(n, n / 2) for n in range(40)]
    (png,) = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    drawn = base64.b64decode(png)
    assert drawn == (folder.path / "curve.png").read_bytes()
    assert matplotlib.image.imread(io.BytesIO(drawn)).ndim == 3
    (gif,) = re.findall(r'src="data:image/gif;base64,([^"]+)"', page)
    with PIL.Image.open(io.BytesIO(base64.b64decode(gif))) as shown:
        assert shown.n_frames == 3
        shown.seek(2)
        pixels = np.asarray(shown.convert("RGB"), int).reshape(-1, 3)
    for colour in (plots.BLUE, plots.ORANGE):  # of the end and of the saddle
        assert np.min(np.max(np.abs(pixels - PIL.ImageColor.getrgb(colour)), axis=1)) < 16
    assert printed.startswith("\nFound: a < b. ")
    assert printed.rstrip().endswith(str(folder.path))
    assert json.loads((folder.path / "settings.json").read_text())["settings"] == dataclasses.asdict(Settings())
    assert pd.read_csv(folder.path / "numbers.csv").half.tolist() == [n / 2 for n in range(100)]
    assert not list(folder.path.glob("*.partial"))


def test_a_folder_with_anything_in_it_is_refused_and_left_as_it_is(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    for path in (tmp_path, tmp_path / "mine.txt"):
        with pytest.raises(FileExistsError, match="is not empty; name a new folder"):
            RunFolder("taylor", Settings(), path)
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]


def squares(path, *, resume=False, stop_at=None):
    """A run of five pieces, interrupted in piece `stop_at`; the numbers of those computed now are returned."""
    computed = []

    def piece(n):
        if n == stop_at:
            raise KeyboardInterrupt
        computed.append(n)
        return {"n": n, "third": np.float64(n) / 3, "values": np.arange(n) / 7}

    folder = RunFolder("taylor", Settings(), path, resume=resume)
    found = [folder.kept(f"piece {n}", lambda n=n: piece(n)) for n in range(5)]
    folder.table("numbers", pd.DataFrame([{"n": p["n"], "third": p["third"], "sum": p["values"].sum()} for p in found]))
    folder.conclude("Found.")
    return computed


def test_a_run_that_was_stopped_goes_on_where_it_was_and_ends_bit_for_bit_the_same(tmp_path):
    squares(tmp_path / "whole")
    with pytest.raises(SystemExit, match="--resume --output"):
        squares(tmp_path / "stopped", stop_at=3)
    assert squares(tmp_path / "stopped", resume=True) == [3, 4]
    first, second = ((tmp_path / name / "numbers.csv").read_bytes() for name in ("whole", "stopped"))
    assert first == second


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("left", [(), (".lock", f"settings.json.{32 * '0'}.partial")])
def test_a_run_starts_in_an_empty_folder_and_in_that_of_a_run_killed_before_it_wrote_its_settings(
    tmp_path, left, resume
):
    for name in left:
        (tmp_path / name).write_text("{")
    assert squares(tmp_path, resume=resume) == [0, 1, 2, 3, 4]


def test_runs_that_begin_in_the_same_second_have_folders_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folders = [RunFolder("taylor", Settings()).path for _ in range(4)]
    assert len(set(folders)) == 4
    assert any(folder.name.endswith("-2") for folder in folders)
    assert all((folder / "settings.json").is_file() for folder in folders)


def test_a_damaged_piece_is_computed_again_with_a_warning(tmp_path):
    with pytest.raises(SystemExit):
        squares(tmp_path / "one", stop_at=4)
    file = next((tmp_path / "one" / "pieces").glob("piece_1*"))
    file.write_bytes(file.read_bytes().replace(b"third", b"fifth"))
    with pytest.warns(UserWarning, match="piece 1: computed again"):
        assert squares(tmp_path / "one", resume=True) == [1, 4]


def test_only_the_stopped_run_itself_goes_on(tmp_path):
    with pytest.raises(ValueError, match="output: got none with --resume"):
        squares(None, resume=True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").touch()
    with pytest.raises(FileExistsError, match="not empty"):
        squares(tmp_path / "mine", resume=True)
    with pytest.raises(SystemExit):
        squares(tmp_path / "one", stop_at=2)
    with pytest.raises(FileExistsError, match="not empty"):
        squares(tmp_path / "one")
    with pytest.raises(ValueError, match="resume: got settings"):
        RunFolder("taylor", Settings(seed=4), tmp_path / "one", resume=True)
    with pytest.raises(ValueError, match="resume: got experiment"):
        RunFolder("proofs", Settings(), tmp_path / "one", resume=True)
    squares(tmp_path / "one", resume=True)
    with pytest.raises(FileExistsError, match="whose run is finished"):
        squares(tmp_path / "one", resume=True)


def test_a_folder_in_use_is_refused_to_a_second_process(tmp_path):
    folder = RunFolder("taylor", Settings(), tmp_path / "one")
    (tmp_path / "one" / "settings.json").unlink()
    with pytest.raises(BlockingIOError, match=r"output: got .* another run is using"):
        RunFolder("taylor", Settings(), tmp_path / "one")
    folder.conclude("Found.")


@pytest.mark.parametrize("columns", [3, 30])
def test_printed_tables_fit_in_100_columns_and_name_what_is_left_out(columns):
    frame = pd.DataFrame({f"column {n}": [n / 3, -1e300] for n in range(columns)})
    lines = tables.text(frame, "rows").splitlines()
    assert max(map(len, lines)) <= 100
    shown = re.findall(r"column \d+", lines[0])
    left = re.findall(r"column \d+", " ".join(lines[3:]))
    assert shown + left == list(frame)
    assert bool(left) == (columns == 30) == ("in rows.csv" in " ".join(lines[3:]))


def test_names_are_printed_with_spaces_and_numbers_with_their_nouns():
    frame = pd.DataFrame({"lowest_loss": [0.5, None], "index": pd.array([1, None], dtype="Int64")})
    shown = tables.text(frame, "points", formatters={"lowest_loss": "{:.2f}".format})
    assert shown.split() == ["lowest", "loss", "index", "0.50", "1", "-", "-"]
    assert [tables.count(n, "minimum", "minima") for n in (0, 1, 2)] == ["0 minima", "1 minimum", "2 minima"]
    assert tables.count(3, "seed") == "3 seeds"


def test_progress_bars_are_drawn_on_terminals_only():
    root = pathlib.Path(experiments.__file__).parent.parent
    for file in (file for folder in ("experiments", "benchmarks") for file in (root / folder).rglob("*.py")):
        for call in (node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)):
            names = [ast.unparse(part) for part in (call.func, *call.args[:1])]
            if {"tqdm.tqdm", "tqdm.trange"} & set(names):
                assert "disable" in {keyword.arg for keyword in call.keywords}, f"{file}:{call.lineno}"


def test_an_invalid_setting_is_reported_in_one_line_and_other_errors_keep_their_traceback(monkeypatch, capsys):
    def refuse(settings):
        raise FileExistsError(f"seed: got {settings.seed}, which is taken.")

    def fail(settings):
        raise ValueError("matrix: got NaN.")

    monkeypatch.setattr(sys, "argv", ["taylor", "--seed", "5"])
    with pytest.raises(SystemExit, match="2"):
        command_line.start("taylor", refuse, Settings, "What?")
    assert capsys.readouterr().err == "python -m experiments.taylor: seed: got 5, which is taken.\n"
    with pytest.raises(ValueError, match="matrix"):
        command_line.start("taylor", fail, Settings, "What?")


@pytest.mark.parametrize("name", sorted(questions()))
def test_every_experiment_has_a_question_and_explains_its_settings(name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit, match="0"):
        runpy.run_path(str(pathlib.Path(experiments.__file__).parent / f"{name}.py"), run_name="__main__")
    said = capsys.readouterr().out
    assert all(option in said for option in ("--quick", "--seed", "--output", "--resume"))
    assert questions()[name].endswith("?")
    assert questions()[name].split()[0] in said
