"""A container in which the step's command never began is `unavailable`, and the step falls back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.control import Control, containers
from tests.testbed.vm import VM

pytestmark = pytest.mark.also_on_a_mac

PIPELINE = """
    containers: {{box: {{image: pcc-no-loader, network: none}}}}
    steps:
      - id: unit
        on: container
        container: box
        {more}
        run: echo ran
"""


@pytest.fixture
def without_loader(vm: VM) -> Iterator[None]:
    """An image whose shell cannot run, such as one for another CPU."""
    vm.sh("mkdir -p /tmp/no-loader && cp /bin/dash /tmp/no-loader/sh")
    vm.sh("cat >/tmp/no-loader/Dockerfile", stdin="FROM scratch\nCOPY sh /bin/sh\n")
    vm.sh("docker build -q -t pcc-no-loader /tmp/no-loader")
    yield
    vm.sh("docker rmi -f pcc-no-loader; rm -r /tmp/no-loader")


@pytest.mark.usefixtures("without_loader")
def test_a_step_whose_container_never_began_falls_back(control: Control, vm: VM) -> None:
    ran = control.run(PIPELINE.format(more="fallback: {on: vm}"))
    assert ran.code == 0, ran.stdout
    first, second = ran.step("unit")["attempts"]
    assert (first["outcome"], first["reason"]) == ("unavailable", "shell_missing")
    assert "exec /bin/sh failed: No such file or directory" in first["words"]
    assert second["outcome"] == "succeeded"
    assert ran.log("unit") == "ran\n"
    assert ran.state["downgraded"] is True
    assert containers(vm, ran.record.name) == []


@pytest.mark.usefixtures("without_loader")
def test_with_isolation_required_the_step_is_unavailable(control: Control) -> None:
    ran = control.run(PIPELINE.format(more="isolation: required"))
    assert ran.code == 3, ran.stdout
    assert ran.step("unit")["reason"] == "shell_missing"
