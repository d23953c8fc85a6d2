"""Makes a page of the options of every command from the code itself, when the site is built; so none can be out of date.

A hook of MkDocs: it calls `on_config` and `on_files`.
"""

import re
from collections.abc import Iterator
from dataclasses import Field
from itertools import groupby
from typing import Any

from histo_mlflow.jobs import Job, find_jobs
from histo_mlflow.options import sections

FOLDER = "options"


def index_page() -> str:
    """Return the page that lists all commands, in the order of work."""
    lines = [
        "# Options of every command",
        "",
        "An option has the same name everywhere: `--learning-rate 1e-4` for `histo`, `-P learning_rate=1e-4` for `mlflow run`, "
        "`learning_rate=1e-4` in Python, `learning_rate: 1e-4` in a yaml for `--config`. What is typed goes before the yaml, "
        "the yaml before the default. `histo NAME --help` says the same as these pages, which are made from the code.",
    ]
    for stage, jobs in groupby(find_jobs().values(), key=lambda job: job.stage):
        lines += ["", f"## {stage}", "", "| command | what it does |", "|---|---|"]
        lines += [f"| [`histo {job.name}`]({job.name}.md) | {_cell(job.help.partition('.')[0])} |" for job in jobs]
    return "\n".join(lines) + "\n"


def job_page(job: Job) -> str:
    """Return the page of a command."""
    lines = [f"# histo {job.name}", "", _text(job.help), "", f"    {job.example}"]
    for section in sorted(sections(job.options), key=lambda section: section.comes_last):
        lines += ["", f"## {section.title or 'Options'}", "", "| option | default | what it means |", "|---|---|---|"]
        lines += [_row(name, part) for name, part in section.options.items()]
    return "\n".join(lines) + "\n"


def pages() -> Iterator[tuple[str, str]]:
    """Yield the path of each page below the documents, and its text."""
    yield f"{FOLDER}/index.md", index_page()
    for job in find_jobs().values():
        yield f"{FOLDER}/{job.name}.md", job_page(job)


def on_config(config: Any) -> Any:
    """Put the pages into the navigation."""
    for entry in config.nav:
        if "Options" in entry:
            entry["Options"] = [path for path, _ in pages()]
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the pages to those that are read from disk."""
    from mkdocs.structure.files import File  # only the site's own environment has it

    for path, text in pages():
        files.append(File.generated(config, path, content=text))
    return files


def _row(name: str, part: Field[Any]) -> str:
    known = part.metadata["option"]
    default = str(part.default).lower() if isinstance(part.default, bool) else part.default
    shown = f"`{default}`" if default != "" else "must be given" if known.missing else ""
    facts = [f"one of {', '.join(f'`{each}`' for each in known.choices)}" if known.choices else known.describe_limits()]
    facts += [f"or {', '.join(f'`{each}`' for each in known.words)}" if known.words else ""]
    facts += ["by its place" if known.positional else ""]
    said = "; ".join(filter(None, facts))
    return f"| `--{name.replace('_', '-')}` | {shown} | {_cell(known.help)}{f' ({said})' if said else ''} |"


def _cell(text: str) -> str:
    return _text(text).replace("|", "\\|").replace("\n", " ")


def _text(text: str) -> str:
    """Return text in which brackets are no tags; in code they stay as they are."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if part.startswith("`") else part.replace("<", "&lt;").replace("*", "\\*") for part in parts)
