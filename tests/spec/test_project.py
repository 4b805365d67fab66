"""The project file: the way to its VM, and the problems with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pccpipe.errors import SpecError
from pccpipe.spec.project import USER_VARIABLE, load_project
from pccpipe.spec.project_model import Project


def load(folder: Path, vm: str) -> Project:
    path = folder / "project.yaml"
    path.write_text(f"id: p\nisolation_mode: vm\nvm: {{external_ip: 10.0.0.2, user: deploy, {vm}}}\n")
    return load_project(path, environ={})


@pytest.mark.parametrize(
    "jump", ["bastion", "ops@bastion.example:2222", "10.0.0.1:22,ops@inner", "'[2001:db8::1]:2222'", '"a, b@c:1"']
)
def test_jump_hosts_have_the_format_of_ssh(tmp_path: Path, jump: str) -> None:
    (tmp_path / "key").write_text("a key")
    vm = load(tmp_path, f"proxy_jump: {jump}, jump_key_path: key" if jump[0] in "'\"" else f'proxy_jump: "{jump}"').vm
    assert vm
    assert vm.proxy_jump == jump.strip("'\"")


@pytest.mark.parametrize(
    "jump", ["a b", "@bastion", "bastion:", "bastion:ssh", "a,,b", "ssh://bastion", "-oProxyCommand=x y"]
)
def test_invalid_jump_hosts_are_a_problem(tmp_path: Path, jump: str) -> None:
    with pytest.raises(SpecError) as caught:
        load(tmp_path, f'proxy_jump: "{jump}"')
    (problem,) = caught.value.problems
    assert f'invalid `proxy_jump`: "{jump}"' in problem.message
    assert "[USER@]HOST[:PORT]" in problem.hint


def test_a_jump_key_must_exist_and_needs_jump_hosts(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"`jump_key_path` names .*/gone, which does not exist"):
        load(tmp_path, "proxy_jump: bastion, jump_key_path: gone")
    with pytest.raises(SpecError, match="has no effect without `proxy_jump`"):
        load(tmp_path, "jump_key_path: gone")


def test_a_login_from_the_environment_cannot_be_an_option_of_ssh(tmp_path: Path) -> None:
    path = tmp_path / "project.yaml"
    path.write_text("id: p\nisolation_mode: vm\nvm: {external_ip: 10.0.0.2}\n")
    with pytest.raises(SpecError, match="in the environment begins with `-`"):
        load_project(path, environ={USER_VARIABLE: "-oProxyCommand=x"})


def money(folder: Path, text: str) -> Project:
    path = folder / "project.yaml"
    path.write_text(f"id: p\n{text}\n")
    return load_project(path, environ={})


def test_a_budget_of_the_day_and_a_file_of_prices(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("as_of: x")
    project = money(tmp_path, "budget_per_day: {tokens: 100M, usd: 2.5}\nprices: own.yaml")
    assert (project.budget_per_day.tokens, project.budget_per_day.usd) == (100_000_000, 2.5)
    assert project.prices == tmp_path / "own.yaml"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("budget_per_day: {usd: .nan}", "`nan` is not a usable number"),
        ("budget_per_day: {usd: .inf}", "at most 1000000000"),
        ("budget_per_day: {usd: -1}", "more than 0"),
        ("budget_per_day: {tokens: many}", "invalid `tokens`"),
        ("budget_per_day: {}", "budget_per_day"),
        ("prices: gone.yaml", r"`prices` names .*gone.yaml, which does not exist"),
    ],
)
def test_an_odd_budget_of_the_day_is_a_problem(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        money(tmp_path, text)
