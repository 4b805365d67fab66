"""A secret that a step leaves behind is on no local disk and ends the run as a leak; the file is named."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from tests.e2e.control import KEY, Control, Ran

PIPELINE = """
    secrets: {{OPENAI_API_KEY: {{from: env}}}}
    steps:
      - {{id: sync, upload: workspace}}
      - id: leak
        on: vm
        secrets: [OPENAI_API_KEY]
        run: |
          mkdir -p out
          {leak}
      - {{id: look, {look}}}
"""


@pytest.fixture(params=["vm", "local"])
def place(request: pytest.FixtureRequest) -> Control:
    """A project with a VM, and one that is all local."""
    control: Control = request.getfixturevalue("control" if request.param == "vm" else "local_control")
    (control.workspace / "a.txt").write_text("one\n")
    return control


def files_with_key(record: Path) -> list[str]:
    """Return the files of the record with the key, besides the workspace's own copy."""
    forms = [KEY.encode(), base64.b64encode(KEY.encode())[:-4]]
    return [
        str(path.relative_to(record))
        for path in record.rglob("*")
        if path.is_file() and "workspace" not in path.parts and any(form in path.read_bytes() for form in forms)
    ]


def leaked(control: Control, leak: str, look: str) -> Ran:
    ran = control.run(PIPELINE.format(leak=leak, look=look))
    assert ran.code == 1
    assert ran.state["status"] == "secret_in_output"
    step = ran.step("look")
    assert (step["outcome"], step["code"]) == ("failed", "secret_in_output")
    assert KEY not in ran.stdout + ran.stderr
    assert "(secret_in_output)" in ran.stdout
    assert files_with_key(ran.record) == []
    return ran


def test_a_secret_in_the_diff_is_masked_and_fails_it(place: Control) -> None:
    ran = leaked(place, 'echo "key: $OPENAI_API_KEY" >> a.txt; echo fine > b.txt', "diff: diff.patch")
    patch = (ran.record / "diff.patch").read_text()
    assert "+key: ***\n" in patch
    assert "+fine\n" in patch
    assert not (ran.record / "workspace").exists()


def test_a_secret_in_a_binary_file_keeps_the_file_out_of_the_diff(place: Control) -> None:
    leak = """printf '\\0%s\\0' "$OPENAI_API_KEY" > bin; echo fine > b.txt"""
    ran = leaked(place, leak, "diff: diff.patch")
    assert "bin" in ran.step("look")["message"]
    patch = (ran.record / "diff.patch").read_text()
    assert "bin" not in patch
    assert "+fine\n" in patch


def test_a_secret_in_an_artifact_is_masked_and_fails_the_download(place: Control) -> None:
    leak = """echo "[$OPENAI_API_KEY]" > out/log; printf %s "$OPENAI_API_KEY" | base64 > out/b64; ln -s /etc out/etc"""
    ran = leaked(place, leak, "download: [out/]")
    assert (ran.record / "artifacts/out/log").read_text() == "[***]\n"
    step = ran.step("look")
    assert "artifacts/out/b64, artifacts/out/log" in step["message"]
    assert step["facts"]["refused"] == ["'out/etc': a link to '/etc', out of the tree"]


def test_a_workspace_with_a_key_is_refused_without_a_fallback(place: Control) -> None:
    (place.workspace / "notes.md").write_text(f"use {KEY}\n")
    (place.workspace / "deploy").write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nb3Blbn\n")
    ran = place.run("""
        secrets: {OPENAI_API_KEY: {from: env}}
        steps:
          - {id: sync, upload: workspace, retry: {attempts: 3, backoff: 10s}, fallback: {on: local}}
          - {id: work, run: cat notes.md, secrets: [OPENAI_API_KEY]}
    """)
    assert (ran.code, ran.state["status"]) == (1, "workspace_refused")
    step = ran.step("sync")
    assert (step["outcome"], step["code"], ran.state["downgraded"]) == ("failed", "workspace_refused", False)
    assert "'deploy' (a private key), 'notes.md' (the value of a secret)" in step["message"]
    assert "exclude them by name" in ran.stdout
    assert KEY not in ran.stdout
    assert [step["path"] for step in ran.state["steps"]] == ["sync"]
    kept = sorted(path.name for path in ran.record.iterdir() if path.name != ".git")
    assert kept == ["events.jsonl", "lock", "pipeline.yaml", "run.json"]


@pytest.mark.parametrize(
    ("run", "arguments", "place_of_it"),
    [
        (f"echo {KEY}", (), "the pipeline"),
        ("echo ${{ inputs.token }}", ("--input", f"token={KEY}"), "the input token"),
    ],
)
def test_a_secret_written_in_the_pipeline_is_refused_before_a_record_is_made(
    local_control: Control, run: str, arguments: tuple[str, ...], place_of_it: str
) -> None:
    ran = local_control.run(
        f"""
        inputs: {{token: {{type: string, default: none}}}}
        secrets: {{OPENAI_API_KEY: {{from: env}}}}
        steps: [{{id: a, run: "{run}", secrets: [OPENAI_API_KEY]}}]
        """,
        *arguments,
    )
    assert ran.code == 2
    assert f"the value of secret OPENAI_API_KEY appears in {place_of_it}, " in ran.stderr
    assert KEY not in ran.stderr
    assert not ran.record.exists()
