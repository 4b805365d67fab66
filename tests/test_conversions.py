"""examples/conversions: pipelines of other tools, converted by hand. Each runs here, with stand-ins for its images."""

from __future__ import annotations

import io
import shutil
import tarfile
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from pccpipe.spec.elsewhere import foreign_file
from tests.e2e.control import ROOT, Control
from tests.testbed.vm import VM

EXAMPLES = ROOT / "examples/conversions"
STAND_INS = Path(__file__).with_name("conversions")
DATABASES = {"postgres:16": 5432, "postgres:17": 5432, "mysql:8": 3306}
NODES = (18, 22)


@pytest.fixture(scope="module")
def furnished(vm: VM) -> Iterator[VM]:
    """Give the VM the images that the examples name, made from those that it has."""
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as tar:
        tar.add(STAND_INS / "database", ".")
    vm.ssh(
        "mkdir -p /tmp/database && base64 -d | tar -x -C /tmp/database", stdin=b64encode(context.getvalue()).decode()
    )
    vm.ssh("docker build -q -t database /tmp/database")
    texts = {image: f"FROM database\nENV NAME={image} PORT={port}\n" for image, port in DATABASES.items()}
    texts |= {f"node:{version}-slim": f"FROM node:20-slim\nENV VERSION={version}\n" for version in NODES}
    for image, text in texts.items():
        vm.ssh(f"docker build -q -t {image} -", stdin=text)
    yield vm
    vm.ssh(f"docker rmi -f database {' '.join(texts)}; rm -rf /tmp/database")


def test_each_original_is_of_another_tool() -> None:
    originals = sorted(EXAMPLES.glob("*/*.yml"))
    assert len(originals) == 3
    for path in originals:
        found = foreign_file(yaml.safe_load(path.read_text()))
        assert found, path
        assert path.stem.removesuffix("-ci") in found[1].lower()


def test_twelve_legs_run_with_a_database_each(furnished: VM, tmp_path: Path) -> None:
    control = _control(tmp_path, "library-matrix", furnished)
    ran = control.run(EXAMPLES / "library-matrix/pipeline.yaml")
    assert ran.code == 0, ran.stdout + ran.stderr
    assert ran.log("summary").split() == ["succeeded"] * 12
    assert "warning" not in ran.stdout
    assert len({path.name for path in (ran.record / "artifacts").rglob("*.xml")}) == 12
    assert furnished.ssh("docker ps -aq --filter label=pccpipe.run").stdout == ""


def test_stages_run_by_their_needs(furnished: VM, tmp_path: Path) -> None:
    control = _control(tmp_path, "release-stages", furnished)
    ran = control.run(EXAMPLES / "release-stages/pipeline.yaml")
    assert ran.code == 0, ran.stdout + ran.stderr
    assert len(ran.step("stages.unit")["attempts"]) == 2
    assert ran.step("stages.lint")["outcome"] == "failed"
    assert [path.name for path in (ran.record / "artifacts").rglob("*.tgz")] == ["app-1.2.3.tgz"]
    assert [path.name for path in (ran.record / "artifacts").rglob("*.xml")] == ["unit.xml"]


@pytest.mark.parametrize("source", ["whole", "empty"])
def test_the_load_has_a_server_and_a_warehouse(furnished: VM, tmp_path: Path, source: str) -> None:
    control = _control(tmp_path, "nightly-etl", furnished)
    if source == "empty":
        (control.workspace / "source/orders.csv").write_text("")
    ran = control.run(EXAMPLES / "nightly-etl/pipeline.yaml", "--input", "day=monday")
    assert ran.code == (1 if source == "empty" else 0), ran.stdout + ran.stderr
    alert = ran.step("alert")
    if source == "empty":
        assert len(ran.step("etl.extract.orders")["attempts"]) == 3
        assert ran.log("alert") == "the load of monday failed\n"
    else:
        assert ran.log("etl.load") == "loaded: order,1\ncustomer,7\n"
        assert alert["outcome"] == "skipped"
    # What ran beside the steps has ended, and the clean-up ran.
    assert ran.step("etl.staging")["outcome"] == "succeeded"
    assert furnished.ssh("docker ps -aq --filter label=pccpipe.run").stdout == ""
    assert furnished.pids("source.sh|IO::Socket") == []


def _control(folder: Path, name: str, vm: VM) -> Control:
    control = Control(folder, vm)
    shutil.copytree(STAND_INS / name, control.workspace, dirs_exist_ok=True)
    return control
