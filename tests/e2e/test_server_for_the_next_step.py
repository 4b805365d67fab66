"""A script that leaves a server behind is pointed to `background: true`, and with it the next step finds the server."""

from __future__ import annotations

from tests.e2e.control import Control

LEFT = """
steps:
  - {id: serve, run: "sleep 300 >server.log 2>&1 & echo $! >server.pid"}
  - {id: test, run: "kill -0 $(cat server.pid)", continue_on_error: true}
"""
KEPT = """
steps:
  - {id: serve, background: true, run: "echo $$ >server.pid; exec sleep 300", ready: {run: test -e server.pid}}
  - {id: test, run: "kill -0 $(cat server.pid)"}
always:
  - {id: late, run: "! kill -0 $(cat server.pid)"}
"""


def test_the_next_step_finds_a_server_in_the_background_and_no_other(local_control: Control) -> None:
    left = local_control.run(LEFT)
    assert left.step("test")["outcome"] == "failed"
    assert any("`background: true`" in warning for warning in left.state["warnings"])
    (local_control.workspace / "server.pid").unlink()
    kept = local_control.run(KEPT)
    assert kept.code == 0, kept.stdout
    assert [kept.step(step)["outcome"] for step in ("serve", "test", "late")] == ["succeeded"] * 3
