"""One page of any runs: tables with intervals and the papers' rows, plots, and what was drawn, found and said.

    python evals/report.py runs/eval/* --clip checkpoints/flatland/clip --out report.html
    python evals/report.py runs/eval/* --against diffusion

RUNs are folders of `evals/generate.py`; what has no score yet is scored. The page is one HTML file with everything in
it, ready to be sent.
"""

from __future__ import annotations

import argparse
import base64
import html
import io
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from PIL import Image

from evals.harness.plots import plot
from evals.harness.summary import Group, require_label
from evals.harness.tables import accounts, differences, examples, origins, published_ways, table, tasks_of
from evals.harness.tasks import TASKS
from evals.score import add_networks, is_flatland, load_groups
from gill.files import write_text
from scripts.command import carry_out

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2rem auto; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; margin: 1rem 0 } th, td { border-bottom: 1px solid #ddd; padding: 4px 10px }
th { text-align: left; background: #f6f6f6 } td { vertical-align: top; font-variant-numeric: tabular-nums }
img { image-rendering: auto } .words { max-width: 320px; white-space: pre-line } .note { color: #555 }
"""


def main(words: list[str] | None = None) -> int:
    """Write the page; returns the exit status."""
    options = _parse(words)
    return carry_out("report", lambda: _report(options))


def _report(options: argparse.Namespace) -> str:
    groups = load_groups(options.runs, options.clip, options.lpips, options.fid)
    body = "\n".join(line for task in tasks_of(groups) for line in _section(groups, task, options))
    page = (
        f"<!doctype html><html lang='en'><meta charset='utf-8'><title>Evaluation</title><style>{_STYLE}</style>"
        f"<h1>Evaluation</h1>{_protocols(groups, options)}{body}</html>\n"
    )
    write_text(options.out, page)
    return f"{options.out}: {len(options.runs)} runs, {len(tasks_of(groups))} tasks, {len(page) // 1024} kB"


def _protocols(groups: Sequence[Group], options: argparse.Namespace) -> str:
    names = sorted({group.protocol for group in groups})
    said = f"<p class='note'>Protocol: {', '.join(names)}. 95 % intervals, bootstrap over items within seeds.</p>"
    return f"{said}<p class='note'>{_networks(groups, options)}</p>"


def _networks(groups: Sequence[Group], options: argparse.Namespace) -> str:
    """What pictures were looked at with: scores of other networks, such as the papers' rows, are other scores."""
    measured = {name for group in groups for name in group.measures}
    names = {"clip_similarity": options.clip, "lpips": options.lpips, "fid": options.fid}
    said = [f"{measure} by {name}." for measure, name in names.items() if measure in measured]
    if any(is_flatland(run) for group in groups for run in group.runs):
        said.append("The papers' rows are of photographs: beside a drawn world's they show which way a trend goes.")
    return html.escape(" ".join(said))


def _list(lines: Sequence[str]) -> str:
    return f"<ul class='note'>{''.join(f'<li>{_plain(each)}</li>' for each in lines)}</ul>"


def _section(groups: Sequence[Group], task: str, options: argparse.Namespace) -> Iterator[str]:
    yield f"<h2>{task}</h2><p>{_plain(TASKS[task].about)}</p>"
    yield as_html(table(groups, task))
    if options.against:
        require_label(groups, options.against)
        yield as_html(differences(groups, task, options.against))
    yield _plot(groups, task)
    yield _list([each[2:] for each in [*origins(groups, task), *published_ways(task), *accounts(groups, task)]])
    yield _examples(examples(groups, task, options.examples))


def as_html(lines: Sequence[str]) -> str:
    """A Markdown table as HTML."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if not line.startswith("|---")]
    found = []
    for number, row in enumerate(rows):
        tag = "td" if number else "th"
        found.append(
            "<tr>"
            + "".join(f"<{tag}>{html.escape(cell.strip('*').replace('`', ''))}</{tag}>" for cell in row)
            + "</tr>"
        )
    return f"<table>{''.join(found)}</table>" if found else ""


def _plain(markdown: str) -> str:
    return html.escape(markdown.replace("`", ""))


def _plot(groups: Sequence[Group], task: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "plot.png")
        plot(groups, task, path)
        return f"<p><img alt='{task}' src='{_data(path.read_bytes())}'></p>"


def _examples(rows: Sequence[dict[str, str | Image.Image]]) -> str:
    titles = list(dict.fromkeys(title for row in rows for title in row))
    head = "".join(f"<th>{html.escape(title)}</th>" for title in titles)
    body = "".join("<tr>" + "".join(_cell(row.get(title, "")) for title in titles) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _cell(content: str | Image.Image) -> str:
    if isinstance(content, str):
        return f"<td class='words'>{html.escape(content)}</td>"
    buffer = io.BytesIO()
    content.save(buffer, "PNG")
    return f"<td><img alt='' src='{_data(buffer.getvalue())}'></td>"


def _data(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _parse(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folders of generate.py")
    parser.add_argument("--out", type=Path, default=Path("report.html"), help="default: report.html")
    add_networks(parser)
    parser.add_argument("--against", metavar="LABEL", help="also paired differences with this system")
    parser.add_argument("--examples", type=int, default=4, help="questions shown of each task (default: 4)")
    return parser.parse_args(words)


if __name__ == "__main__":
    sys.exit(main())
