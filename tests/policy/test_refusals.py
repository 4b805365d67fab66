"""What a policy refuses of a pipeline or a project file at load, with its place, before anything is opened."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pccpipe.errors import PolicyRefused, SpecError
from pccpipe.outcome import Code, IsolationMode, Place
from pccpipe.policy.enforce import PipelineCheck, ProjectCheck, hold
from pccpipe.policy.policy import Ceilings, Origin, Policy, SecretRule
from pccpipe.spec.load import load_pipeline, load_text
from pccpipe.spec.model import Parallel, Pipeline, Run
from pccpipe.spec.problem import Problem, Rule
from pccpipe.spec.project import load_project
from pccpipe.spec.project_model import Project

DIGEST = "runner@sha256:" + "0" * 64
HEAD = "version: 1\nname: x\n"
STEP = "steps:\n  - {id: a, on: vm, run: 'true'}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "project"
    made.mkdir()
    (made / "inside.txt").write_text("inside")
    (tmp_path / "outside.txt").write_text("root:$6$secret:1\n: : not yaml\n")
    return made


@pytest.fixture
def refused(folder: Path) -> Callable[..., list[Problem]]:
    def load(text: str, policy: Policy | None = None) -> list[Problem]:
        file = folder / "p.yaml"
        file.write_text(text)
        try:
            load_pipeline(file, check=PipelineCheck(policy or Policy.untrusted()))
        except PolicyRefused as error:
            return [problem for problem in error.problems if problem.rule is Rule.POLICY]
        except SpecError:
            return []
        return []

    return load


def _steps(body: str) -> str:
    return f"{HEAD}steps:\n  - {{id: a, {body}}}\n"


def _container(settings: str) -> str:
    return f"{HEAD}containers:\n  c: {{image: {DIGEST!r}, {settings}}}\n{STEP}"


OUTSIDE = "../outside.txt"


MARK = "@@"
"""In a text, where the refusal is expected."""
LATER = "only when the step begins"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (_steps("on: @@local, run: id"), "a step `on: local`: allowed: container, vm"),
        (_steps("run: @@id"), "a step `on: local`"),
        (f"{HEAD}defaults: {{on: local}}\n{_steps('run: @@id')[len(HEAD) :]}", "a step `on: local`"),
        (_steps("on: vm, run: id, fallback: {on: @@local}"), "a fallback `on: local`: allowed: none"),
        (_steps("on: vm, run: id, fallback: @@{run: id}"), "a fallback `on: vm`"),
        (_steps("upload: workspace, fallback: {on: @@local}"), "a fallback `on: local`"),
        (_steps("on: vm, account: @@login, run: id"), "`account: login`"),
        (_steps("parallel: [{id: b, on: @@local, run: id}]"), "a step `on: local`"),
        (f"{HEAD}{STEP}always:\n  - {{id: b, on: @@local, run: id}}\n", "a step `on: local`"),
        (_steps(f"on: vm, run: id, files: {{k: {{file: @@{OUTSIDE}}}}}"), f"the path `{OUTSIDE}`"),
        (_steps(f"on: vm, run: id, files: {{k: {{template: @@{OUTSIDE}}}}}"), f"the path `{OUTSIDE}`"),
        (_steps(f"on: vm, run: id, files: {{k: {{schema: @@{OUTSIDE}}}}}"), f"the path `{OUTSIDE}`"),
        (_steps(f"on: vm, run: id, result: {{path: r, schema: @@{OUTSIDE}}}"), f"the path `{OUTSIDE}`"),
        (_steps("build: {image: i, context: @@..}"), "the path `..`"),
        (_steps(f"build: {{image: i, context: ., dockerfile: @@{OUTSIDE}}}"), f"the path `{OUTSIDE}`"),
        (_steps("on: vm, run: id, files: {k: {file: @@~/.ssh/id_rsa}}"), "the path `~/.ssh/id_rsa`"),
        (_steps('on: vm, run: id, files: {k: {file: @@"${{ run.folder }}/../x"}}'), LATER),
        (_steps('on: vm, run: id, files: {k: {file: @@"${{ steps.a.stdout }}"}}'), LATER),
        (f"{HEAD}include: @@{OUTSIDE}\n", "the path `"),
        (f"{HEAD}inputs: {{f: {{type: path, default: @@{OUTSIDE}}}}}\n{STEP}", f"the path `{OUTSIDE}`"),
        (f"{HEAD}secrets: {{@@K: {{from: env}}}}\n{STEP}", "the secret K: allowed: none"),
        (f"{HEAD}timeout: @@5h\n{STEP}", "`timeout: 5h`: the ceiling is 14400 s"),
        (f"{HEAD}containers: {{c: {{image: @@any}}}}\n{STEP}", "the image `any`: it has no digest"),
        (f'{HEAD}containers: {{c: {{image: @@"${{{{ steps.a.stdout }}}}"}}}}\n{STEP}', LATER),
        (_container("network: @@host"), "`network: host`: allowed: none"),
        (_container("memory: @@unlimited"), "`memory: unlimited`"),
        (_container("user: @@root"), "`user: root`"),
        (_container("user: root, capabilities: @@[SYS_ADMIN]"), "`capabilities: [SYS_ADMIN]`"),
        (_container("runtime: @@odd"), "`runtime: odd`"),
        (_container("new_privileges: @@true"), "`new_privileges: true`"),
        (_container("apparmor: @@unconfined"), "`apparmor: unconfined`"),
        (_container("init: @@false"), "`init: false`"),
        (_container("network: none, egress: [@@evil.example]"), "the host `evil.example`: allowed: none"),
    ],
)
def test_a_refusal_has_its_place(refused: Callable[..., list[Problem]], text: str, words: str) -> None:
    before = text[: text.index(MARK)]
    at = before.count("\n") + 1, len(before) - before.rfind("\n")
    problems = refused(text.replace(MARK, ""))
    if "capabilities" in text:
        problems = problems[1:]  # `user: root`, without which capabilities reach nobody
    problems = [problem for problem in problems if "building the image" not in problem.message]
    assert [(problem.position.line, problem.position.column) for problem in problems] == [at], problems
    assert words in problems[0].message


def test_all_refusals_come_at_once(refused: Callable[..., list[Problem]]) -> None:
    text = f"{HEAD}secrets: {{K: {{from: env}}}}\nsteps:\n  - {{id: a, on: local, run: id}}\n  - {{id: b, run: id}}\n"
    assert len(refused(text)) == 3


def test_what_is_inside_may_be_named(refused: Callable[..., list[Problem]], folder: Path) -> None:
    text = (
        f"{HEAD}containers: {{c: {{image: {DIGEST}, network: none}}}}\nsteps:\n"
        "  - id: a\n    container: c\n    run: id\n"
        '    files: {k: {file: inside.txt}, s: {schema: builder-result}, r: {file: "${{ run.folder }}/b/1.json"}}\n'
        "    result: {path: r.json, schema: builder-result}\n"
    )
    assert refused(text) == []
    outside = text.replace("inside.txt", str(folder.parent / "outside.txt"))
    assert refused(outside, Policy.untrusted(folders=[folder.parent])) == []


@pytest.mark.parametrize("name", ["link", "up/outside.txt"])
def test_a_link_leads_nowhere_else(refused: Callable[..., list[Problem]], folder: Path, name: str) -> None:
    if name == "link":
        (folder / "link").symlink_to("../outside.txt")
    else:
        (folder / "up").symlink_to("..")
    for text in (
        _steps(f"on: vm, run: id, files: {{k: {{template: {name}}}}}"),
        f"{HEAD}include: ./{name}\n",
        _steps(f"on: vm, run: id, result: {{path: r, schema: {name}}}"),
    ):
        (problem,) = refused(text)
        assert "outside of the folders" in problem.message
        assert "secret" not in str(problem)


def test_nothing_of_a_refused_file_is_quoted(folder: Path) -> None:
    for name in ("include: ../outside.txt", "include: /etc/shadow"):
        (folder / "p.yaml").write_text(f"{HEAD}{name}\n")
        with pytest.raises(PolicyRefused) as caught:
            load_pipeline(folder / "p.yaml", check=PipelineCheck(Policy.untrusted()))
        assert "$6$" not in str(caught.value)
        assert "root:" not in str(caught.value)
        assert caught.value.code is Code.POLICY_REFUSED


def test_what_a_pipeline_includes_is_judged_at_its_own_place(
    refused: Callable[..., list[Problem]], folder: Path
) -> None:
    (folder / "base.yaml").write_text(_steps("on: local, run: id"))
    (problem,) = refused(f"{HEAD}include: ./base.yaml\n")
    assert (Path(problem.position.file).name, problem.position.line) == ("base.yaml", 4)
    (problem,) = refused(f"{HEAD}include: ./base.yaml\nchange: {{a: {{set: {{on: vm, account: login}}}}}}\n")
    assert "account: login" in problem.message
    assert Path(problem.position.file).name == "p.yaml"


def test_an_include_is_refused_behind_another(refused: Callable[..., list[Problem]], folder: Path) -> None:
    (folder / "base.yaml").write_text(f"{HEAD}include: ../outside.txt\n")
    (problem,) = refused(f"{HEAD}include: ./base.yaml\n")
    assert Path(problem.position.file).name == "base.yaml"


def test_a_secret_has_the_operators_source_and_upstream(refused: Callable[..., list[Problem]]) -> None:
    rule = SecretRule(Origin.ENV, "REAL_KEY", upstream="https://api.example/v1", models=("gpt-*",))
    policy = Policy.untrusted(secrets={"K": rule})

    def words(spec: str) -> str:
        return "\n".join(problem.message for problem in refused(f"{HEAD}secrets: {{K: {spec}}}\n{STEP}", policy))

    right = 'from: env, name: REAL_KEY, via: proxy, upstream: "https://api.example/v1/", models: [gpt-5]'
    assert words(f"{{{right}}}") == ""
    assert "another one" in words(f"{{{right.replace('REAL_KEY', 'DATABASE_PASSWORD')}}}")
    assert "another one" in words('{from: file, path: inside.txt, via: proxy, upstream: "https://api.example/v1"}')
    assert "without `via: proxy`" in words("{from: env, name: REAL_KEY}")
    assert "the upstream `http://127.0.0.1:9`" in words(
        '{from: env, name: REAL_KEY, via: proxy, upstream: "http://127.0.0.1:9", models: [gpt-5]}'
    )
    assert "the upstream `https://api.openai.com/v1`" in words(
        "{from: env, name: REAL_KEY, via: proxy, models: [gpt-5]}"
    )
    for api in ("gemini", "no-such-api"):
        assert "the upstream `https://" in words(
            f"{{from: env, name: REAL_KEY, via: proxy, models: [gpt-5], api: {api}}}"
        )
    assert words(f"{{{right}, api: anthropic}}") == ""
    agent = "agents: {a: {use: claude-code, model: gpt-5, secret: K}}\n"
    without = "secrets: {K: {from: env, name: REAL_KEY, via: proxy, models: [gpt-5]}}\n"
    refusals = refused(f"{HEAD}{agent}{without}{STEP}", policy)
    assert any("the secret K without `api`" in problem.message for problem in refusals)
    assert "without `models`" in words(f"{{{right.removesuffix(', models: [gpt-5]')}}}")
    assert "the model `o9`" in words(f"{{{right.replace('gpt-5', 'o9')}}}")
    assert "`mcp` in `hosted_tools`" in words(f"{{{right}, hosted_tools: [mcp]}}")
    assert "`DELETE /files/*` in `allow`" in words(f"{{{right}, allow: ['DELETE /files/*']}}")


def test_hosts_cover_no_more_than_they_say(refused: Callable[..., list[Problem]]) -> None:
    policy = Policy.untrusted(hosts=["registry.example", "*.cdn.example:443", "10.0.0.7:80", "[2001:db8::1]:443"])
    fine = ["registry.example", "registry.example:8080", "a.cdn.example:443", "10.0.0.7:80", "[2001:db8::1]:443"]
    bad = [
        "x.registry.example",
        "a.cdn.example",
        "cdn.example:443",
        "10.0.0.7:81",
        "10.0.0.7",
        "*.example",
        "[::1]:443",
    ]
    entries = ", ".join(f"{entry!r}" for entry in (*fine, *bad))
    found = refused(_container(f"network: none, egress: [{entries}]"), policy)
    assert [problem.message.split("`")[1] for problem in found] == bad


def test_an_image_may_be_named_without_a_digest(refused: Callable[..., list[Problem]]) -> None:
    policy = Policy.untrusted(images=["pcc-runner:latest"])
    text = f"{HEAD}containers: {{c: {{image: 'pcc-runner:%s'}}}}\n{STEP}"
    assert refused(text % "latest", policy) == []
    assert len(refused(text % "latest2", policy)) == 1
    only = Policy(images=("mine/*",))
    assert "the image `yours`: allowed: mine/*" in refused(text.replace("pcc-runner:%s", "yours"), only)[0].message
    assert refused(text.replace("pcc-runner:%s", "mine/a:1"), only) == []


def test_only_an_image_that_is_listed_by_name_is_built(refused: Callable[..., list[Problem]]) -> None:
    text = _steps("build: {image: 'pcc-runner:latest', context: .}")
    (problem,) = refused(text)
    assert "building the image `pcc-runner:latest`" in problem.message
    assert refused(text, Policy.untrusted(images=["pcc-runner:latest"])) == []


def _held(
    text: str, policy: Policy, inputs: dict[str, str] | None = None, mode: IsolationMode = IsolationMode.VM
) -> Pipeline:
    return hold(policy, load_text(text, Path("/nowhere")), Project("p", mode), inputs or {})


def test_values_of_inputs_are_judged_before_the_first_step() -> None:
    text = (
        f"{HEAD}inputs: {{url: {{type: string}}, image: {{type: string}}, limit: {{type: string}}, "
        "f: {type: path}}\n"
        'secrets: {K: {from: env, via: proxy, upstream: "${{ inputs.url }}"}}\n'
        'containers: {c: {image: "${{ inputs.image }}"}}\ntimeout: "${{ inputs.limit }}"\n'
        'steps:\n  - {id: a, on: vm, run: id, files: {k: {file: "${{ inputs.f }}"}}}\n'
    )
    policy = Policy.untrusted(secrets={"K": SecretRule(upstream="https://api.example")})
    good = {"url": "https://api.example", "image": DIGEST, "limit": "1h", "f": "/nowhere/order.md"}
    assert _held(text, policy, good).name == "x"
    for name, value, words in (
        ("url", "http://10.0.0.1", "the upstream `http://10.0.0.1`"),
        ("image", "evil", "the image `evil`"),
        ("limit", "9h", "the ceiling is 14400 s"),
        ("f", "/etc/shadow", "the path `/etc/shadow`"),
    ):
        with pytest.raises(PolicyRefused) as caught:
            _held(text, policy, {**good, name: value})
        (problem,) = caught.value.problems
        assert words in problem.message


def test_ceilings_hold_where_a_pipeline_sets_no_limit() -> None:
    text = (
        f"{HEAD}secrets: {{K: {{from: env, via: proxy, upstream: 'https://api.example'}}}}\n"
        "steps:\n  - parallel: [{id: a, on: vm, secrets: [K], run: id}, {id: b, on: vm, run: id}]\n    id: g\n"
    )
    rules = {"K": SecretRule(upstream="https://api.example")}
    held = _held(text, Policy.untrusted(secrets=rules, ceilings=Ceilings(timeout=60, tokens=1000, log=5000)))
    assert held.timeout
    assert held.timeout.known == 60
    group = held.steps[0].body
    assert isinstance(group, Parallel)
    with_key, without = (step.body for step in group.steps)
    assert isinstance(with_key, Run)
    assert isinstance(without, Run)
    assert with_key.budget
    assert with_key.budget.tokens
    assert (with_key.budget.tokens.known, with_key.log_limit, without.budget) == (1000, 5000, None)


@pytest.mark.parametrize(
    ("mode", "on"),
    [
        (IsolationMode.LOCAL, "vm"),
        (IsolationMode.CONTAINER, "vm"),
        (IsolationMode.CONTAINER, "container, container: c"),
    ],
)
def test_a_project_leads_no_step_to_a_place_that_is_refused(mode: IsolationMode, on: str) -> None:
    with pytest.raises(PolicyRefused, match=r"isolation_mode (local|container) of the project p leads it there"):
        _held(
            f"{HEAD}containers: {{c: {{image: '{DIGEST}'}}}}\n" + _steps(f"on: {on}, run: id")[len(HEAD) :],
            Policy.untrusted(),
            mode=mode,
        )


def test_the_operators_preset_refuses_nothing(refused: Callable[..., list[Problem]]) -> None:
    text = (
        f"{HEAD}secrets: {{K: {{from: command, command: id}}}}\n"
        f"containers: {{c: {{image: any, network: host, user: root}}}}\n"
        f"steps:\n  - {{id: a, on: local, run: id, files: {{k: {{file: {OUTSIDE}}}}}}}\n"
        f"  - {{id: b, on: vm, account: login, run: id, fallback: {{on: local}}}}\n"
    )
    assert refused(text, Policy.operator()) == []
    assert _held(text.replace(OUTSIDE, "/etc/hostname"), Policy.operator(), mode=IsolationMode.LOCAL).name == "x"


def test_a_projects_logs_have_a_ceiling(folder: Path) -> None:
    file = folder / "pccpipe.yaml"
    file.write_text("id: a\nisolation_mode: vm\nlog_quota: 9g\n")
    with pytest.raises(PolicyRefused, match=r":3:12: the policy refuses `log_quota: 9g`: the ceiling is 1e\+09 bytes"):
        load_project(file, {}, check=ProjectCheck(Policy.untrusted(ceilings=Ceilings(logs=10**9))))


def test_a_project_file_is_judged(folder: Path) -> None:
    (folder.parent / "key").write_text("key")
    file = folder / "pccpipe.yaml"
    file.write_text(
        "id: theirs\nisolation_mode: local\n"
        "vm: {external_ip: 10.1.1.1, user: u, key_path: ../key, known_hosts: hosts, proxy_jump: 'a@jump:22,other'}\n"
    )
    policy = Policy.untrusted(vms=["jump"])
    with pytest.raises(PolicyRefused) as caught:
        load_project(file, {}, check=ProjectCheck(policy))
    found = [(problem.position.line, problem.message) for problem in caught.value.problems]
    assert [line for line, _ in found] == [2, 3, 3, 3]
    assert "isolation_mode: local" in found[0][1]
    assert [message.split("`")[1] for _, message in found[1:]] == ["10.1.1.1", "../key", "other"]
    allowed = Policy.untrusted(places=list(Place), folders=[folder.parent], vms=["jump", "10.1.*", "other"])
    assert load_project(file, {}, check=ProjectCheck(allowed)).id == "theirs"


LEGS = """version: 1
name: x
inputs: {{tags: {{type: list, default: [a]}}, box: {{type: list, default: [a]}}}}
containers:
  good: {{image: "node:${{{{ matrix.tag }}}}"}}
  child: {{extends: good}}
  other: {{image: "{other}"}}
steps:
  - {{id: plan, run: x, result: {{path: plan.json}}}}
  - {{id: a, matrix: {matrix}, container: {container}, run: x}}
"""


@pytest.mark.parametrize(
    ("matrix", "container", "refusals"),
    [
        ("{tag: [18, 20]}", "good", []),
        ("{tag: [18, 22]}", "good", ["node:22"]),
        ("{tag: [18, 22], exclude: [{tag: 22}]}", "good", []),
        ("{tag: [18], include: [{tag: 23}]}", "child", ["node:23"]),
        ("{tag: [18], include: [{tag: 23, box: good}]}", "\"${{ matrix.box or 'good' }}\"", ["node:23"]),
        ("{tag: [18], box: [good], include: [{tag: 23, box: other}]}", '"${{ matrix.box }}"', []),
        ('{tag: "${{ steps.plan.result }}"}', "good", ["node:${{ matrix.tag }}"]),
        ('"${{ steps.plan.result }}"', '"${{ matrix.box }}"', ["node:${{ matrix.tag }}"]),
        (
            "{" + ", ".join(f"x{n}: [1, 2, 3, 4]" for n in range(40)) + ", tag: [18]}",
            "good",
            ["node:${{ matrix.tag }}"],
        ),
    ],
)
def test_the_image_of_each_leg_is_judged(
    refused: Callable[..., list[Problem]], matrix: str, container: str, refusals: list[str]
) -> None:
    policy = Policy(images=("node:18", "node:20", "fine"))
    text = LEGS.format(other="fine", matrix=matrix, container=container)
    found = [problem.message for problem in refused(text, policy)]
    assert len(found) == len(refusals)
    assert all(f"`{image}`" in message for image, message in zip(refusals, found, strict=True)), found


def test_the_images_that_an_input_gives_are_judged_when_it_is_known(folder: Path) -> None:
    policy = Policy(images=("node:18", "fine"))
    file = folder / "p.yaml"
    file.write_text(LEGS.format(other="fine", matrix='{tag: "${{ inputs.tags }}"}', container="good"))
    pipeline = load_pipeline(file, check=PipelineCheck(policy))
    project = Project("p", IsolationMode.LOCAL)
    hold(policy, pipeline, project, {"tags": [18], "box": []})
    with pytest.raises(PolicyRefused, match="the image `node:20`"):
        hold(policy, pipeline, project, {"tags": [18, 20], "box": []})


def test_the_built_image_of_each_leg_is_judged(refused: Callable[..., list[Problem]]) -> None:
    policy = Policy(images=("node:18",))
    text = _steps("matrix: {tag: [18, 20]}, build: {image: 'node:${{ matrix.tag }}', context: .}")
    assert ["node:20" in problem.message for problem in refused(text, policy)] == [True]


def test_more_legs_than_a_pipeline_may_have_are_not_written_out(refused: Callable[..., list[Problem]]) -> None:
    inner = f"{{id: b, matrix: {{m: {list(range(100))}}}, build: {{image: 'node:${{{{ matrix.tag }}}}', context: .}}}}"
    body = f"matrix: {{tag: [18], n: {list(range(99))}, x: [1, 2]}}, parallel: [{inner}]"
    (problem,) = refused(_steps(body), Policy(images=("node:18",)))
    assert "known only when the step begins" in problem.message
