"""Find the models without a price of a pipeline that has a budget in USD."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress

from pccpipe.errors import ExpressionError
from pccpipe.secrets.prices import Prices, load_prices
from pccpipe.spec.model import Pipeline, Run, Step
from pccpipe.spec.project_model import Project
from pccpipe.spec.secret import Via
from pccpipe.values import Json

FIX = "add the model to a file of prices, and name the file under `prices:` in the project file"


def unpriced(pipeline: Pipeline, project: Project, inputs: Mapping[str, Json]) -> Iterator[tuple[Step, str]]:
    """Yield each step with a budget in USD, and a model that it may ask for and that has no price.

    The proxy refuses a model that the pipeline does not name. Raises SpecError, UsageError.
    """
    prices: Prices | None = None
    for step in _counted_in_usd(pipeline, project):
        for model in _models_of(pipeline, step, {"inputs": inputs}):
            prices = prices or load_prices(project.prices)
            if prices.of(model) is None:
                yield step, model


def unpriced_text(step: Step, model: str) -> str:
    """Say that a model has no price."""
    return f"step {step.id}: its budget is in USD, and the model {model!r} has no price"


def _counted_in_usd(pipeline: Pipeline, project: Project) -> Iterator[Step]:
    everywhere = project.budget_per_day.usd is not None or bool(pipeline.budget and pipeline.budget.usd)
    for step in pipeline.all_steps():
        if isinstance(step.body, Run) and (everywhere or (step.body.budget and step.body.budget.usd)):
            yield step


def _models_of(pipeline: Pipeline, step: Step, names: Mapping[str, object]) -> Iterator[str]:
    assert isinstance(step.body, Run)
    proxied = {name for name, secret in pipeline.secrets.items() if secret.via is Via.PROXY}
    agents = step.body.agent.agents if step.body.agent else ()
    models = [agent.model for agent in agents if agent.secret in proxied]
    for name in proxied.intersection((*step.body.secrets, *(agent.secret for agent in agents))):
        models += pipeline.secrets[name].models
    for model in models:
        with suppress(ExpressionError):  # it needs more than inputs; the proxy refuses the model
            yield model.render(names)
