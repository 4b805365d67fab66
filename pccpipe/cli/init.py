"""`pccpipe init`: writes a project file and a pipeline into the current folder."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.option("--vm", metavar="ADDRESS", help="The project's VM: [USER@]HOST[:PORT].")
@click.option("--force", is_flag=True, help="Overwrite files that exist.")
def init(vm: str | None, force: bool) -> None:
    """Start with pccpipe in this folder: write pccpipe.yaml and pipeline.yaml.

    Asks nothing. The project's id comes from git's origin or the folder's name. The test command comes from
    package.json, pyproject.toml, Makefile, Cargo.toml or go.mod. The pipeline is the default one, ready for changes.
    """
    from pccpipe.cli.options import print_lines
    from pccpipe.starter import PIPELINE_FILE, start_project

    started = start_project(Path(), vm, force=force)
    found = started.found
    test = f"{found.test} ({found.test_from})" if found.test else f"none found; name one in {PIPELINE_FILE}"
    print_lines(
        [
            *(f"wrote {file}" for file in started.files),
            f"project: {found.id} ({found.id_from})",
            f"tests:   {test}",
            f"steps:   isolation_mode {started.isolation_mode.value}",
            "",
            "next: write into work-order.md what to build, then",
            *(["  pccpipe doctor"] if vm else []),
            f"  pccpipe plan {PIPELINE_FILE} --input work_order=work-order.md",
            f"  pccpipe run {PIPELINE_FILE} --input work_order=work-order.md",
        ]
    )
