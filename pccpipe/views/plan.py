"""Shows a plan as text and as JSON: each step with its places, its commands and its fallback."""

from __future__ import annotations

import json
from pathlib import Path

from pccpipe.executor.planned import Plan, PlannedStep, Way
from pccpipe.outcome import IsolationMode, Outcome, Place
from pccpipe.shells import dialect_of
from pccpipe.spec.model import DEFAULT_OPTIONS, Budget, Retry, Run, Value
from pccpipe.spec.position import Position
from pccpipe.spec.secret import Secret, SecretSource
from pccpipe.values import Json
from pccpipe.views.services import beside_rules
from pccpipe.views.text import harmless, harmless_line, project_text
from pccpipe.views.words import with_codes
from pccpipe.words import limit, memory


def plan_text(plan: Plan) -> list[str]:
    """Return a plan as lines."""
    lines = [f"{plan.pipeline.name} ({plan.pipeline.path})", *_head(plan)]
    always = False
    for step in plan.steps:
        if step.always and not always:
            lines += ["", "always, whatever happens:"]
            always = True
        elif step.depth == 0 and not always:
            lines.append("")
        lines += _step(step, plan)
    if plan.warnings:
        lines += ["", *(f"warning: {harmless_line(warning)}" for warning in plan.warnings)]
    return lines


def _head(plan: Plan) -> list[str]:
    project, vm, pipeline = plan.project, plan.project.vm, plan.pipeline
    at = ""
    if vm and project.isolation_mode is IsolationMode.VM:
        run_as = f", steps run there as {vm.run_as}" if vm.run_as else ""
        at = f", VM {vm.user}@{vm.external_ip}:{vm.port}, {vm.root}{run_as}"
    head = {
        "includes": ", ".join(pipeline.included),
        "removed": ", ".join(f"{step} ({_short(at)})" for step, at in pipeline.removed.items()),
        "project": project_text(
            project.id, str(project.path) if project.path else None, project.isolation_mode, local=project.local
        ).removeprefix("project ")
        + at,
        "inputs": ", ".join(
            f"{name}={json.dumps(value, ensure_ascii=False)}{_of(plan, pipeline.inputs[name].position)}"
            for name, value in plan.inputs.items()
        ),
        "secrets": ", ".join(f"{_secret(plan, each)}{_of(plan, each.position)}" for each in pipeline.secrets.values()),
    }
    head["budget"] = _budgets(plan)
    return [f"  {name + ':':<9} {harmless_line(text)}" for name, text in head.items() if text]


def _budgets(plan: Plan) -> str:
    day = plan.project.budget_per_day
    of_run = f"{_budget(plan.pipeline.budget)} for the run" if plan.pipeline.budget else ""
    of_day = _budget(Budget(Value(known=day.tokens), Value(known=day.usd)))
    return "; ".join(filter(None, (of_run, f"{of_day} a day for the project" if of_day else "")))


def _budget(budget: Budget) -> str:
    """Say a budget in words."""
    parts = []
    for value, unit in ((budget.tokens, "tokens"), (budget.usd, "USD by estimate")):
        known = _known(value)
        if known is not None:
            parts.append(f"{known if isinstance(known, str) else f'{known:,.10g}'} {unit}")
    return f"{' and '.join(parts)}{'; at its end a person is asked' if budget.asks else ''}"


def _known(value: Value[int] | Value[float] | None) -> float | str | None:
    if value is None:
        return None
    return value.expression.source if value.expression else value.known


def _budget_json(budget: Budget | None) -> Json:
    if budget is None:
        return None
    at_end = "ask" if budget.asks else "fail"
    return {"tokens": _known(budget.tokens), "usd": _known(budget.usd), "at_end": at_end}


def _secret(plan: Plan, secret: Secret) -> str:
    via = f" (stays on this machine: steps get a token for {plan.upstreams[secret.name]})" if secret.upstream else ""
    return f"{secret.name} from {_SOURCES[secret.source]} {secret.source_name}{via}"


_SOURCES = {
    SecretSource.ENV: "the environment's",
    SecretSource.FILE: "the file",
    SecretSource.COMMAND: "the output of",
}


def _of(plan: Plan, position: Position) -> str:
    """Return the place where something is written, if the pipeline includes other files."""
    return f" ({_short(position)})" if plan.pipeline.included else ""


def _short(position: Position) -> str:
    return f"{Path(position.file).name}:{position.line}"


def _step(planned: PlannedStep, plan: Plan) -> list[str]:
    indent = "  " * (planned.depth + 1)
    label = planned.path if planned.depth == 0 else f"{'always ' if planned.of_group else ''}{planned.step.id}"
    first = planned.ways[0] if planned.ways else None
    what = _place(first, planned.asked) if first else planned.does
    lines = [f"{indent}{label}: {planned.kind} {what}".rstrip()]
    if first:
        lines += _way(first, indent + "    ")
    lines += [f"{indent}    {text}" for text in _rules(planned)]
    if plan.pipeline.included:
        changed = (f"; {', '.join(change.keys)} at {_short(change.position)}" for change in planned.step.changes)
        lines.append(f"{indent}    from {_short(planned.step.position)}{''.join(changed)}")
    if len(planned.ways) > 1:
        assert first
        second = planned.ways[1]
        same = second.command == first.command
        lines.append(f"{indent}    if unavailable: {_place(second, None)}{', the same command' if same else ''}")
        if not same:
            lines += _way(second, indent + "        ")
    elif isinstance(planned.step.body, Run) and first and first.place is not Place.LOCAL:
        lines.append(f"{indent}    if unavailable: the step ends as `unavailable`, and runs nowhere else")
    return [harmless(line) for line in lines]


def _place(way: Way, asked: Place | None) -> str:
    led = f" (asks for {asked})" if asked and asked is not way.place else ""
    match way.place:
        case Place.LOCAL:
            return f"on this machine{led}"
        case Place.VM:
            return f"on the VM {way.host}{led}"
        case Place.CONTAINER:
            at = "this machine" if way.host == "localhost" else f"the VM {way.host}"
            if way.container is None:
                return f"in the container {way.choice} on {at}{led}"
            settings = way.container.settings
            egress = way.container.written.egress
            out = f" but for {', '.join(egress)}" if egress else ""
            settings_text = {
                "network": f"{settings.network}{out}",
                "memory": memory(settings.memory) if settings.memory else "unlimited",
                "cpus": settings.cpus,
                "pids": settings.pids or "unlimited",
                "runtime": settings.runtime,
                "workspace": "read-only" if settings.read_only_workspace else None,
                "root file system": "read-only" if settings.read_only_root else None,
            }
            words = "".join(f", {name} {value}" for name, value in settings_text.items() if value is not None)
            return f"in a container of {settings.image} on {at}{led}{words}"


def _way(way: Way, indent: str) -> list[str]:
    lines = [
        f"{indent}$ {line}" if not number else f"{indent}  {line}"
        for number, line in enumerate(way.command.rstrip("\n").split("\n"))
    ]
    if way.container and way.container.settings.loosened:
        lines.append(f"{indent}loosened: {'; '.join(way.container.settings.loosened)}")
    if way.shell != "sh":
        lines.append(f"{indent}shell: {way.shell}")
    if way.shell_options != DEFAULT_OPTIONS[dialect_of(way.shell)]:
        lines.append(f"{indent}shell options: {', '.join(way.shell_options) or 'none'}")
    if way.cwd:
        lines.append(f"{indent}in: {way.cwd}")
    if way.env:
        lines.append(f"{indent}env: {', '.join(f'{name}={value}' for name, value in way.env.items())}")
    return lines


def _rules(planned: PlannedStep) -> list[str]:
    step, body = planned.step, planned.step.body
    rules: list[str] = []
    if planned.condition is not None:
        rules.append(f"if: {planned.condition}")
    if step.needs:
        rules.append(f"needs: {', '.join(step.needs)}")
    rules += beside_rules(step)
    if isinstance(body, Run):
        if body.as_login:
            rules.append("account: the login user, not `run_as`")
        if body.files:
            rules.append(f"files: {', '.join(file.name for file in body.files)}")
        if body.agent and body.agent.session:
            rules.append(f"session: {body.agent.session}")
        if body.all_secrets:
            rules.append(f"secrets: {', '.join(body.all_secrets)}")
        if body.max_tokens:
            given = body.max_tokens.expression
            rules.append(f"at most {given.source if given else body.max_tokens.known} tokens a turn")
        if body.budget:
            rules.append(f"budget: {_budget(body.budget)}")
    if planned.result:
        forgeable = " (unattested: without `run_as`, a command on the VM could forge it)" if planned.unattested else ""
        rules.append(f"result: {planned.result}{forgeable}")
    if step.own_workspace and not step.matrix:
        rules.append("workspace: its own copy, which goes at its end; downloads into a folder of its own")
    if planned.timeout is not None:
        rules.append(f"timeout: {_seconds(planned.timeout)}")
    if step.retry.attempts > 1:
        rules.append(f"at most {step.retry.attempts} attempts, again after {_outcomes(step.retry)}")
        if step.retry.max_backoff is not None:
            rules.append(f"waits of at most {limit(step.retry.max_backoff)} between them")
    if step.continue_on_error:
        rules.append(f"run continues if it fails{with_codes(step.continue_exit_codes)}")
    if step.fails_as:
        rules.append(f"if it fails, the run ends as {step.fails_as}")
    return rules


def _outcomes(retry: Retry) -> str:
    words = []
    for outcome in Outcome:
        if outcome in retry.outcomes:
            words.append(outcome.value + (with_codes(retry.exit_codes) if outcome is Outcome.FAILED else ""))
    return ", ".join(words)


def _seconds(text: str) -> str:
    try:
        return limit(float(text))
    except ValueError:
        return text


def plan_json(plan: Plan) -> Json:
    """Return a plan as data, for programs: durations in seconds, sizes in bytes, each part with its file and line."""
    pipeline, project = plan.pipeline, plan.project
    vm = project.vm
    return {
        "pipeline": pipeline.name,
        "path": str(pipeline.path),
        "includes": list(pipeline.included),
        "removed": {step: _from(at) for step, at in pipeline.removed.items()},
        "project": {
            "id": project.id,
            "path": str(project.path) if project.path else None,
            "isolation_mode": project.isolation_mode.value,
            "vm": {
                "user": vm.user,
                "external_ip": vm.external_ip,
                "port": vm.port,
                "root": vm.root,
                "run_as": vm.run_as,
            }
            if vm
            else None,
        },
        "inputs": {
            name: {"value": value, "from": _from(pipeline.inputs[name].position)} for name, value in plan.inputs.items()
        },
        "secrets": {
            secret.name: {
                "source": secret.source.value,
                "of": secret.source_name,
                "via": secret.via.value,
                "api": secret.api.value if secret.api else None,
                "upstream": plan.upstreams.get(secret.name),
                "from": _from(secret.position),
            }
            for secret in pipeline.secrets.values()
        },
        "budget": _budget_json(pipeline.budget),
        "budget_per_day": {"tokens": project.budget_per_day.tokens, "usd": project.budget_per_day.usd},
        "steps": [_step_json(step) for step in plan.steps],
        "warnings": list(plan.warnings),
    }


def _from(position: Position) -> dict[str, Json]:
    return {"file": position.file, "line": position.line, "column": position.column}


def _step_json(planned: PlannedStep) -> Json:
    step, body = planned.step, planned.step.body
    return {
        "path": planned.path,
        "id": step.id,
        "depth": planned.depth,
        "always": planned.always,
        "needs": list(step.needs),
        "group_always": planned.of_group,
        "kind": planned.kind,
        "does": planned.does,
        "on": planned.asked,
        "ways": [_way_json(way) for way in planned.ways],
        "if": planned.condition,
        "timeout": _number(planned.timeout),
        "workspace": "own" if step.own_workspace else None,
        "attempts": step.retry.attempts,
        "retry_exit_codes": [*sorted(step.retry.exit_codes)],
        "continue_on_error": step.continue_on_error,
        "continue_exit_codes": [*sorted(step.continue_exit_codes)],
        "fails_as": step.fails_as,
        "secrets": list(body.all_secrets) if isinstance(body, Run) else [],
        "budget": _budget_json(body.budget) if isinstance(body, Run) else None,
        "files": [file.name for file in body.files] if isinstance(body, Run) else [],
        "result": planned.result,
        "unattested": planned.unattested,
        "from": _from(step.position),
        "changes": [{**_from(change.position), "keys": list(change.keys)} for change in step.changes],
    }


def _way_json(way: Way) -> Json:
    container = way.container
    return {
        "place": way.place.value,
        "host": way.host,
        "command": way.command,
        "shell": way.shell,
        "shell_options": list(way.shell_options),
        "cwd": way.cwd,
        "env": dict(way.env),
        "container": {
            "name": container.written.name,
            "image": container.settings.image,
            "network": container.settings.network,
            "memory": container.settings.memory,
            "cpus": container.settings.cpus,
            "pids": container.settings.pids,
            "read_only_workspace": container.settings.read_only_workspace,
            "from": _from(container.written.position),
        }
        if container
        else None,
    }


def _number(text: str | None) -> Json:
    """Return a duration as a number, or its expression."""
    try:
        return None if text is None else float(text)
    except ValueError:
        return text
