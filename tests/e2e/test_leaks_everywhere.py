"""A run whose steps put a secret everywhere that pccpipe reads leaves it in no file and on no screen."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path

from tests.e2e.control import KEY, Control
from tests.testbed.vm import VM

PIPELINE = """
secrets: {OPENAI_API_KEY: {from: env}}
containers: {agent: {image: "pcc-runner:latest"}}
steps:
  - {id: sync, upload: workspace}
  - id: output
    on: vm
    secrets: [OPENAI_API_KEY]
    continue_on_error: true
    run: |
      printf '%s\\n' "plain $OPENAI_API_KEY" "warning: $OPENAI_API_KEY" >&2
      printf %s "$OPENAI_API_KEY" | tee "$PCC_OUT/../$OPENAI_API_KEY" | base64
      printf %s "$OPENAI_API_KEY" | od -An -tx1 | tr -d ' \\n'
      exec "./$OPENAI_API_KEY"
  - id: result
    on: container
    container: agent
    secrets: [OPENAI_API_KEY]
    continue_on_error: true
    result: {path: result.json}
    run: |
      printf '{"%s": "%s", "escalation": "<<<NEED_HELP>>>\\\\nwhat_i_need: %s\\\\n<<<END_HELP>>>"}' \\
        "$OPENAI_API_KEY" "$OPENAI_API_KEY" "$OPENAI_API_KEY" >"$PCC_OUT/result.json"
      cat "$PCC_OUT/result.json"
  - id: broken
    on: vm
    secrets: [OPENAI_API_KEY]
    continue_on_error: true
    result: {path: broken.json}
    run: printf '{"%s":\\n%s' "$OPENAI_API_KEY" "$OPENAI_API_KEY" >"$PCC_OUT/broken.json"
  - id: kinds
    on: vm
    secrets: [OPENAI_API_KEY]
    continue_on_error: true
    result: {path: kinds.json}
    run: mkdir -p "$PCC_OUT/kinds.json/$OPENAI_API_KEY"
  - id: leave
    on: vm
    secrets: [OPENAI_API_KEY]
    run: |
      mkdir -p out/$OPENAI_API_KEY "out/$(printf %s "$OPENAI_API_KEY" | base64)"
      echo "$OPENAI_API_KEY" >out/file
      echo one >out/$OPENAI_API_KEY/one
      echo two >"out/x-$OPENAI_API_KEY.txt"
      mkfifo "out/pipe-$OPENAI_API_KEY"
      ln -s "/etc/$OPENAI_API_KEY" out/link
      long=$(printf %076d 0)
      echo cut >"out/$long$OPENAI_API_KEY$long$long"
      echo cut >"out/x$long$(printf %080d 0)${OPENAI_API_KEY}$(printf %060d 0)"
      echo "name" >"new-$OPENAI_API_KEY.txt"
      echo "old $OPENAI_API_KEY" >>a.txt
      printf '\\0%s' "$OPENAI_API_KEY" >"bin-$OPENAI_API_KEY"
      docker create --name "c-$OPENAI_API_KEY" --label "pccpipe.run=r-$OPENAI_API_KEY" pcc-runner:latest >/dev/null
  - {id: fetch, download: [out/], continue_on_error: true}
  - {id: diff, diff: diff.patch, continue_on_error: true}
  - {id: image, build: {image: "pccpipe-test:leaks", context: image}, continue_on_error: true}
"""
LEAKING = ["result", "broken", "fetch", "diff"]
"""The steps that fail because of the secret."""


def forms() -> dict[str, bytes]:
    """Return long pieces of the key, and its usual encodings without their padding."""
    raw = KEY.encode()
    return {
        "the key": raw,
        "its beginning": raw[:16],
        "its end": raw[-12:],
        "base64": base64.b64encode(raw)[:-4],
        "hex": raw.hex().encode(),
    }


def shown_in(text: bytes) -> list[str]:
    return [name for name, form in forms().items() if form in text]


def found_in(folder: Path) -> list[tuple[str, str]]:
    """Return the places of the key in a run's folder: in the name of a file, its content, or a link."""
    found = []
    for path in folder.rglob("*"):
        name = str(path.relative_to(folder))
        if name.startswith((".git/", "workspace/")):
            continue
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        target = str(path.readlink()) if path.is_symlink() else ""
        found += [(name, form) for form in shown_in(f"{name}\0{target}\0".encode() + content)]
    return found


def greet(vm: VM, words: str) -> None:
    """Add these shell commands to the login's start-up file."""
    vm.sh("cat >~pcc/.bashrc", stdin=words)


def test_a_secret_in_every_place_is_on_no_screen_and_in_no_file(control: Control, vms: Callable[..., VM]) -> None:
    control.vm = vms()
    greet(control.vm, f"echo 'welcome {KEY}'; echo 'welcome {KEY}' >&2\n")
    (control.workspace / "a.txt").write_text("one\n")
    image = control.folder / "image"
    image.mkdir()
    (image / "Dockerfile").write_text(f"FROM pcc-runner:latest\nRUN echo {KEY}; echo {KEY} | base64; exit 3\n")
    for how in ("plain", "jsonl"):
        ran = control.run(PIPELINE, "--format", how, limit=240)
        assert ran.code == 0, ran.stdout + ran.stderr
        assert [step["path"] for step in ran.state["steps"] if step["code"] == "secret_in_output"] == LEAKING
        assert ran.log("output").startswith("***")
        assert "***" in (ran.record / "logs/image-1.build.log").read_text()
        assert "new-***.txt" in (ran.record / "diff.patch").read_text()
        assert shown_in((ran.stdout + ran.stderr).encode()) == []
        assert found_in(ran.record) == []
        for command in ("show", "logs"):
            shown = control.do(command, ran.record.name)
            assert shown.returncode == 0, shown.stderr
            assert "***" in shown.stdout
            assert shown_in((shown.stdout + shown.stderr).encode()) == []
        control.vm.sh(f"docker rm -f c-{KEY}")


def test_a_secret_in_the_message_of_a_machine_is_masked(control: Control, vms: Callable[..., VM]) -> None:
    control.vm = vms()
    greet(control.vm, f"echo 'no entry: {KEY}'; echo 'no entry: {KEY}' >&2; exit 1\n")
    ran = control.run("""
        secrets: {OPENAI_API_KEY: {from: env}}
        steps: [{id: a, on: vm, run: "true", secrets: [OPENAI_API_KEY]}]
    """)
    assert ran.code == 3, ran.stdout
    assert "***" in ran.stdout
    assert shown_in((ran.stdout + ran.stderr).encode()) == []
    assert found_in(ran.record) == []
