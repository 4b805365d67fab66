"""Budgets hold in whole runs: asked and raised, in money, over the runs of a day, and after a kill in a call."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import pccpipe
from pccpipe.errors import UsageError
from pccpipe.layout import SPENT
from pccpipe.outcome import Code, Outcome
from pccpipe.record.state import RunState
from pccpipe.scripted.dialect import Asked
from pccpipe.scripted.reply import Hang, ModelUsage, Reply, Say
from pccpipe.scripted.server import ScriptedServer
from pccpipe.views.plan import plan_text
from pccpipe.views.summary import questions

KEY = "sk-dummy-of-this-test"
CALL = """
import json, os, sys, urllib.error, urllib.request as request
body = {"model": os.environ.get("MODEL", "gpt-5.2-codex"), "input": "x", "stream": False, "max_output_tokens": 1000}
head = {"Authorization": "Bearer " + os.environ["KEY"], "Content-Type": "application/json"}
for _ in range(int(sys.argv[1])):
    try:
        call = request.Request(os.environ["PCC_PROXY_URL"] + "/responses", json.dumps(body).encode(), head)
        request.urlopen(call).read()
    except urllib.error.HTTPError as error:
        raise SystemExit(error.read().decode())
"""
PIPELINE = """
version: 1
name: budgets
secrets: {{KEY: {{from: env, via: proxy, upstream: "{url}/v1"{secret}}}}}
{top}
steps:
  - {{id: ask, on: local, run: {python} {call} 5, secrets: [KEY]{step}}}
"""


class Setting:
    """A folder with runs, and a model that takes 1,000 tokens a call: 0.014 USD."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.runs = folder / "runs"
        self.workspace = folder / "work"
        self.workspace.mkdir()
        self.hangs = False
        self.calls = 0
        (folder / "call.py").write_text(CALL)
        self.model = ScriptedServer(self._choose, key=KEY)

    def _choose(self, path: str, asked: Asked) -> Reply:
        self.calls += 1
        return Reply(Say("ok"), usage=ModelUsage(1, 0, 999), faults=(Hang(),) if self.hangs else ())

    def pipeline(self, *, top: str = "", step: str = "", secret: str = "") -> Path:
        file = self.folder / "pipeline.yaml"
        call = self.folder / "call.py"
        file.write_text(
            PIPELINE.format(url=self.model.url, top=top, step=step, secret=secret, python=sys.executable, call=call)
        )
        return file

    def project(self, text: str = "") -> pccpipe.Project:
        file = self.folder / "pccpipe.yaml"
        file.write_text(f"id: p\nisolation_mode: local\n{textwrap.dedent(text)}")
        return pccpipe.load_project(file)

    def run(self, run_id: str, pipeline: Path, project: pccpipe.Project | None = None) -> RunState:
        return pccpipe.run(
            pccpipe.load(pipeline),
            run_id=run_id,
            project=project or pccpipe.local_project(),
            workspace=self.workspace,
            runs_dir=self.runs,
            secrets={"KEY": KEY},
        ).state

    def resume(self, run_id: str, runs: Path | None = None) -> RunState:
        return pccpipe.resume(run_id, runs_dir=runs or self.runs, secrets={"KEY": KEY}).state


@pytest.fixture
def setting(tmp_path: Path) -> Iterator[Setting]:
    made = Setting(tmp_path)
    with made.model:
        yield made


def test_a_step_asks_for_money_and_goes_on_with_it_also_elsewhere(setting: Setting, tmp_path: Path) -> None:
    state = setting.run("r1", setting.pipeline(step=", budget: {usd: 0.0281, at_end: ask}"))
    assert state.status == "waiting_for_input"
    made = setting.calls
    assert made == 2
    lines = "\n".join(questions(state, setting.runs / "r1"))
    assert "ask needs a person: a higher budget of money" in lines
    assert "about 0.0280 USD of the step's budget of 0.0281 USD are used" in lines
    assert " r1 usd=..." in lines
    assert setting.resume("r1").status == "waiting_for_input"
    assert setting.calls == made
    for wrong in ("0.0281", "0.01", "-1", "nan", "inf", "much", "1e400", ""):
        with pytest.raises(UsageError, match=r"needs a number above 0\.0281"):
            pccpipe.answer("r1", {"usd": wrong}, runs_dir=setting.runs)
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(setting.runs, elsewhere)
    pccpipe.answer("r1", {"usd": "20"}, runs_dir=elsewhere)
    state = setting.resume("r1", elsewhere)
    assert state.outcome is Outcome.SUCCEEDED, state.message
    assert setting.calls == made + 5
    assert state.model
    assert (state.model.calls, state.model.usd) == (7, 0.097916)
    written = json.loads((elsewhere / "r1" / "run.json").read_text())
    assert written["model"]["usd"] == 0.097916
    assert written["steps"][0]["model"]["budget_usd"] == 20.0


def test_the_runs_of_a_day_share_a_budget_and_the_last_one_says_so(setting: Setting) -> None:
    project = setting.project("budget_per_day: {usd: 0.0981}")
    pipeline = setting.pipeline()
    assert setting.run("r1", pipeline, project).outcome is Outcome.SUCCEEDED
    state = setting.run("r2", pipeline, project)
    assert (state.outcome, state.code) == (Outcome.FAILED, Code.BUDGET_EXCEEDED)
    assert setting.calls == 7
    assert "raise `budget_per_day: usd` of the project file, or wait for the next day (UTC)" in state.message
    assert [path.name for path in (setting.runs / SPENT).iterdir()] == ["p"]
    assert {run.run_id for run in pccpipe.list_runs(runs_dir=setting.runs)} == {"r1", "r2"}


KILLED = """
import sys
from pathlib import Path
import pccpipe
folder = Path(sys.argv[1])
pccpipe.run(
    pccpipe.load(folder / "pipeline.yaml"), run_id="r1", project=pccpipe.load_project(folder / "pccpipe.yaml"),
    workspace=folder / "work", runs_dir=folder / "runs", secrets={"KEY": sys.argv[2]},
)
"""


def test_a_kill_in_a_call_makes_it_not_free(setting: Setting, tmp_path: Path) -> None:
    setting.project("budget_per_day: {tokens: 1M}")
    setting.pipeline(top="budget: {tokens: 1M, usd: 1}", step=", budget: {tokens: 500k}")
    setting.hangs = True
    with subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path), KEY]) as process:
        until = time.monotonic() + 60
        while not setting.calls and time.monotonic() < until:
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    setting.hangs = False
    (day,) = (setting.runs / SPENT / "p").iterdir()
    (line,) = day.read_text().splitlines()
    reserved = json.loads(line)
    assert reserved["tokens"] >= 1000
    state = setting.resume("r1")
    assert state.model
    assert state.model.estimated_tokens == reserved["tokens"]
    assert state.model.usd
    assert round(state.model.usd * 1e6) == reserved["micros"]
    assert state.steps["ask"].model
    assert state.steps["ask"].model.budget_used == state.model.tokens
    assert sum(json.loads(line)["tokens"] for line in day.read_text().splitlines()) == state.model.tokens


def test_a_run_with_a_budget_of_money_and_a_model_without_a_price_does_not_begin(setting: Setting) -> None:
    pipeline = setting.pipeline(step=", budget: {usd: 1}", secret=", models: [strange-1]")
    with pytest.raises(UsageError, match="step ask: its budget is in USD, and the model 'strange-1' has no price"):
        setting.run("r1", pipeline)
    assert not (setting.runs / "r1").exists()
    assert "'strange-1' has no price" in "\n".join(pccpipe.plan(pccpipe.load(pipeline)).warnings)
    (setting.folder / "own.yaml").write_text('as_of: "2026-11-30"\nmodels: {"strange-*": {input: 1, output: 1}}\n')
    project = setting.project("prices: own.yaml")
    assert not [each for each in pccpipe.plan(pccpipe.load(pipeline), project=project).warnings if "price" in each]


def test_a_broken_file_of_prices_stops_the_run_before_it_begins(setting: Setting) -> None:
    project = setting.project("prices: call.py")
    with pytest.raises(pccpipe.SpecError):
        setting.run("r1", setting.pipeline(), project)
    assert not (setting.runs / "r1").exists()


def test_an_agents_model_needs_a_price_too(setting: Setting) -> None:
    text = f"""
        version: 1
        name: agents
        secrets: {{KEY: {{from: env, via: proxy, upstream: "{setting.model.url}/v1"}}}}
        agents:
          a: {{use: codex, model: gpt-5.2-codex, secret: KEY}}
          b: {{use: codex, model: strange-2, secret: KEY}}
        containers: {{box: {{image: i, network: none}}}}
        budget: {{usd: 1}}
        steps: [{{id: ask, on: container, container: box, agent: [a, b], prompt: {{text: hello}}}}]
    """
    with pytest.raises(UsageError, match="'strange-2' has no price"):
        pccpipe.run(
            pccpipe.load(text),
            run_id="r1",
            project=pccpipe.local_project(),
            runs_dir=setting.runs,
            secrets={"KEY": KEY},
        )


def test_a_plan_says_each_budget(setting: Setting) -> None:
    pipeline = setting.pipeline(top="budget: {tokens: 20M, usd: 50}", step=", budget: {usd: 12.5, at_end: ask}")
    plan = pccpipe.plan(pccpipe.load(pipeline), project=setting.project("budget_per_day: {tokens: 100M}"))
    text = "\n".join(plan_text(plan))
    assert "budget:   20,000,000 tokens and 50 USD by estimate for the run; 100,000,000 tokens a day" in text
    assert "budget: 12.5 USD by estimate; at its end a person is asked" in text


def test_a_policy_bounds_what_a_person_may_raise(setting: Setting) -> None:
    policy = pccpipe.Policy(ceilings=pccpipe.Ceilings(tokens=5000, run_usd=1.0))
    pipeline = setting.pipeline(step=", budget: {tokens: 3000, at_end: ask}")
    common = {"runs_dir": setting.runs, "secrets": {"KEY": KEY}, "policy": policy}
    project = pccpipe.local_project()
    loaded = pccpipe.load(pipeline, policy=policy)
    first = pccpipe.run(loaded, run_id="r1", project=project, workspace=setting.workspace, **common)  # type: ignore[arg-type]
    (question,) = first.state.open_questions
    assert "at most 5,000 by the policy" in str(question.inputs["budget"])
    assert first.state.model
    assert first.state.model.budget_usd == 1.0
    pccpipe.answer("r1", {"budget": "9M"}, runs_dir=setting.runs)
    second = pccpipe.resume("r1", **common)  # type: ignore[arg-type]
    assert (second.state.outcome, second.state.code) == (Outcome.FAILED, Code.BUDGET_EXCEEDED)
    assert second.state.model
    assert second.state.model.tokens <= 5000
