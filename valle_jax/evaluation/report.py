"""table.md and index.html: an evaluation's figures beside the papers', verdicts, and audio to listen to."""

from __future__ import annotations

import html
import pathlib
from collections.abc import Sequence

from valle_jax.audio import read_audio, write_audio
from valle_jax.evaluation.bootstrap import Estimate
from valle_jax.evaluation.paired import NO_DIFFERENCE, verdict
from valle_jax.evaluation.papers import PAPER_ROWS, PaperRow
from valle_jax.evaluation.plots import CODEBOOK, draw_plots
from valle_jax.evaluation.results import Column, Measured, Results
from valle_jax.evaluation.trials import Trial

SHOWN = 8  # trials with players
PROMPT_RATE = 24_000  # of the prompts on the page
STYLE = """
body { font: 15px/1.4 system-ui, sans-serif; margin: 2em auto; max-width: 1400px; padding: 0 1em }
table { border-collapse: collapse } td, th { padding: .3em .6em; border-bottom: 1px solid #ccc; text-align: left }
small { color: #666 } audio { width: 150px } img { max-width: 100% } .wide { overflow-x: auto }
"""


def write_report(results: Results, trials: Sequence[Trial], root: pathlib.Path, out: pathlib.Path) -> None:
    """Writes OUT/table.md, OUT/index.html, OUT/plots and OUT/prompts; `root` is where the trials' audio is."""
    tables = [table for table in (main_table(results), difference_table(results), forced_table(results)) if table[1:]]
    facts = _facts(results)
    notes = _notes(results)
    text = "\n\n".join([facts, *(_markdown(table) for table in tables), *notes]) + "\n"
    (out / "table.md").write_text(text, encoding="utf-8")
    plots = draw_plots(results, trials, out)
    images = "".join(f'<h2>{html.escape(title)}</h2><img src="{path}" alt="{title}">' for title, path in plots.items())
    page = (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>valle evaluate</title>\n'
        f"<style>{STYLE}</style>\n"
        f"<h1>{html.escape(str(results.facts['protocol']))}</h1>\n<p>{html.escape(facts)}</p>\n"
        + "".join(f'<div class="wide">{_html(table)}</div><br>\n' for table in tables)
        + "".join(f"<p>{html.escape(note)}</p>\n" for note in notes)
        + f'<h2>Listen</h2>\n<div class="wide">{_players(results, trials, root, out)}</div>\n{images}\n</html>\n'
    )
    (out / "index.html").write_text(page, encoding="utf-8")


Table = list[list[str]]  # the first row is the heading


def main_table(results: Results) -> Table:
    """Rows of the evaluation, then those of the papers, whose figures are marked where another model read them."""
    columns = _columns(results)
    table = [["", *map(_heading, columns)]]
    for key in results.rows:
        table.append([_label(results, key), *(_cell(results.estimate(key, c.key)) for c in columns)])
    for row in _paper_rows(results):
        table.append([f"{row.paper} paper: {row.label}", *(_paper_cell(row, column) for column in columns)])
    return table


def difference_table(results: Results) -> Table:
    """Each row less its baseline, and what that shows."""
    table = [["", "against", *map(_heading, _columns(results))]]
    for key, row in results.rows.items():
        if row.baseline is None:
            continue
        cells = []
        for column in _columns(results):
            difference = results.difference(key, column.key)
            word = verdict(column.figure, difference)
            if difference is None:
                cells.append("")
            elif word == NO_DIFFERENCE:
                cells.append(word)
            else:
                cells.append(f"{_cell(difference, sign='+')} {word}")
        table.append([_label(results, key), results.rows[row.baseline].label, *cells])
    return table


def forced_table(results: Results) -> Table:
    """Teacher-forced losses and accuracies by codebook, of each split; no rows where no dataset was given."""
    splits = results.facts.get("teacher_forced", {})
    rows = [
        [f"{split}: {kind}, teacher-forced", *("" if value is None else f"{value:.3f}" for value in values)]
        for split, kinds in splits.items()
        for kind, values in kinds.items()
    ]
    width = max((len(row) for row in rows), default=1)
    return [["", *(f"codebook {k}" for k in range(1, width))], *rows]


def _columns(results: Results) -> list[Column]:
    """Those of tables: accuracies by codebook are in a plot."""
    return [column for column in results.columns if not CODEBOOK.fullmatch(column.figure.name)]


def _heading(column: Column) -> str:
    return f"{column.figure.name} ({_model(column)})"


def _label(results: Results, key: str) -> str:
    row = results.rows[key]
    return row.label if key == row.system else f"{row.label}, {row.setting}"


def _model(column: Column) -> str:
    """What a measure measures by: `pocketsphinx` of `words_pocketsphinx`."""
    return column.measure.partition("_")[2] or column.measure


def _cell(estimate: Estimate | None, sign: str = "") -> str:
    if estimate is None:
        return ""
    return f"{estimate.value:{sign}.3f} [{estimate.low:{sign}.3f}, {estimate.high:{sign}.3f}]"


def _paper_rows(results: Results) -> tuple[PaperRow, ...]:
    return PAPER_ROWS.get(str(results.facts["protocol"]), ())


def _paper_cell(row: PaperRow, column: Column) -> str:
    """A paper's figure in our column; † where it was another recogniser's, ‡ where another speaker model's."""
    if column.figure.name == "wer" and row.wer is not None:
        return f"{row.wer:.3f}" + " †" * (_model(column) != row.asr)
    if column.figure.name == "similarity_prompt_resynthesised" and row.similarity is not None:
        return f"{row.similarity:.3f}" + " ‡" * (_model(column) != row.voice)
    return ""


def _notes(results: Results) -> list[str]:
    marks = {
        "†": "† by another ASR than this table's ({}): not comparable with the rows above.",
        "‡": "‡ by another speaker model than this table's ({}): not comparable with the rows above.",
    }
    cells = [cell for line in main_table(results) for cell in line[1:]]
    rows = _paper_rows(results)
    models = {"†": sorted({row.asr for row in rows}), "‡": sorted({row.voice for row in rows})}
    notes = ["Brackets: 95 % bootstrap intervals over trials. Differences: paired bootstrap over common trials."]
    notes += [text.format(", ".join(models[m])) for m, text in marks.items() if any(m in cell for cell in cells)]
    if not results.facts.get("teacher_forced"):
        notes.append("No teacher-forced losses: they need a dataset directory (--dataset).")
    failed = {key: len(row.failed) for key, row in results.rows.items() if row.failed}
    notes += [
        f"{n} trials could not be asked of {_label(results, key)}; see results.json." for key, n in failed.items()
    ]
    return notes


def _facts(results: Results) -> str:
    facts, trials = results.facts, results.facts["trials"]
    return (
        f"Protocol {facts['protocol']}, model {facts['model']} ({facts['model_hash']}), {trials['n']} trials "
        f"({trials['rejected']} utterances left out, see rejected.jsonl), {facts['seeds']} seeds, {facts['date']}, "
        f"valle-jax {facts['versions']['valle-jax']}."
    )


def _markdown(table: Table) -> str:
    heading, *rows = [f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in table]
    return "\n".join([heading, "|" + "---|" * len(table[0]), *rows])


def _html(table: Table) -> str:
    lines = (
        "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in line)
        for line, tag in zip(table, ["th", *["td"] * (len(table) - 1)], strict=True)
    )
    return "<table>" + "".join(f"<tr>{line}</tr>\n" for line in lines) + "</table>"


def _players(results: Results, trials: Sequence[Trial], root: pathlib.Path, out: pathlib.Path) -> str:
    """The first trials with the first run of every row."""
    (out / "prompts").mkdir(exist_ok=True)
    said = {(key, sample.trial): sample for key, row in results.rows.items() for sample in reversed(row.samples)}
    lines = "".join(f"<th>{html.escape(_label(results, key))}</th>" for key in results.rows)
    lines = f"<tr><th></th><th>prompt</th>{lines}</tr>\n"
    for number, trial in enumerate(trials[:SHOWN]):
        samples = read_audio(root / trial.prompt_audio, PROMPT_RATE)[: round(trial.prompt_seconds * PROMPT_RATE)]
        prompt = f"prompts/{number:03d}.flac"
        write_audio(out / prompt, samples, PROMPT_RATE)
        text = f"{html.escape(trial.text)}<br><small>{html.escape(trial.speaker)}, {html.escape(trial.setting)}</small>"
        cells = [text, _player(prompt), *(_heard(said.get((key, trial.id))) for key in results.rows)]
        lines += "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>\n"
    return f"<table>{lines}</table>"


def _player(path: str) -> str:
    return f'<audio controls preload="none" src="{html.escape(path)}"></audio>'


def _heard(sample: Measured | None) -> str:
    """A player, with what a recogniser heard."""
    if sample is None or sample.audio is None:
        return ""
    heard = next((str(v["heard"]) for v in sample.values.values() if "heard" in v), "")
    return f"{_player(sample.audio)}<br><small>{html.escape(heard)}</small>"
