"""Hold a run to money: its project's account of the day, and the models without a price."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pccpipe.errors import UsageError
from pccpipe.executor.unpriced import FIX, unpriced, unpriced_text
from pccpipe.layout import SPENT
from pccpipe.secrets.prices import load_prices, micros
from pccpipe.secrets.proxy.accounts import SpendLimits
from pccpipe.secrets.proxy.day import DayAccount
from pccpipe.spec.model import Pipeline
from pccpipe.spec.project_model import Project
from pccpipe.values import Json


def day_account(project: Project, runs_dir: Path, run_id: str) -> DayAccount | None:
    """Return the project's account of the day, which all runs in a folder share; None without a budget."""
    budget = project.budget_per_day
    if budget.tokens is None and budget.usd is None:
        return None
    limits = SpendLimits(budget.tokens, None if budget.usd is None else micros(budget.usd))
    return DayAccount(runs_dir / SPENT / project.id, limits, run_id)


def check_prices(pipeline: Pipeline, project: Project, inputs: Mapping[str, Json]) -> None:
    """Raise UsageError if a budget is in USD, and a model that the pipeline names has no price. Raises SpecError."""
    if project.prices:
        load_prices(project.prices)
    for step, model in unpriced(pipeline, project, inputs):
        raise UsageError(f"{step.position}: {unpriced_text(step, model)}", FIX)
