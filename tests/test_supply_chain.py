"""The lock files pin all that is installed, by hash; the image has the agents that its Dockerfile pins."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.testbed.vm import VM

ROOT = Path(__file__).resolve().parents[1]
RENEW = "sh tests/lock.sh renews it"
LOCKS = {
    "requirements.lock": ("build",),
    "requirements-dev.lock": ("build", "dev"),
    "requirements-fuzz.lock": ("build", "fuzz"),
}
_PIN = re.compile(
    r"(?P<name>[a-z0-9-]+)==(?P<version>[^ ;]+)(?: ; (?P<marker>.+?))? \\\n(?P<hashes>(?:    --hash=.+\n)+)"
)


MACHINES: tuple[dict[str, str], ...] = (
    {"sys_platform": "linux", "platform_machine": "x86_64"},
    {"sys_platform": "darwin", "platform_machine": "arm64"},
    {"sys_platform": "darwin", "platform_machine": "x86_64"},
)


def locked(name: str, machine: dict[str, str] | None = None) -> dict[str, str]:
    """Return a lock file's versions on a machine, by package; each line must pin a version with hashes."""
    text = (ROOT / name).read_text(encoding="utf-8")
    pins = re.sub(r"^#.*\n", "", text, flags=re.M)
    assert re.sub(_PIN, "", pins) == "", "nothing but pins: no index, no address, no path"
    found: dict[str, str] = {}
    for match in _PIN.finditer(pins):
        hashes = match["hashes"].replace(" \\\n", "\n").split()
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", each) for each in hashes), match["name"]
        if match["marker"] and not Marker(match["marker"]).evaluate(machine or {}):
            continue
        assert match["name"] not in found, "one version on one machine"
        found[match["name"]] = match["version"]
    return found


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: "-".join(machine.values()))
@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_file_pins_all_that_pyproject_asks_for(lock: str, machine: dict[str, str]) -> None:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    project, pins = pyproject["project"], locked(lock, machine)
    asked = [*pyproject["build-system"]["requires"], *project["dependencies"]]
    asked += [each for extra in LOCKS[lock] for each in project["optional-dependencies"][extra]]
    for requirement in map(Requirement, asked):
        if requirement.marker and not requirement.marker.evaluate(machine):
            continue
        pinned = pins.get(canonicalize_name(requirement.name), "")
        assert pinned, f"{requirement} is not in {lock}: {RENEW}"
        assert requirement.specifier.contains(pinned), f"{lock} has {requirement.name} {pinned}: {RENEW}"


@pytest.mark.parametrize("lock", LOCKS)
def test_all_lock_files_have_the_same_versions(lock: str) -> None:
    whole = locked("requirements-dev.lock")
    for name, pinned in locked(lock).items():
        assert name == "atheris" or whole[name] == pinned, RENEW


def test_what_is_installed_here_is_what_the_lock_file_says() -> None:
    wanted = locked("requirements-dev.lock")
    assert {name: version(name) for name in wanted} == wanted, "sh tests/setup.sh"


@pytest.mark.parametrize(("program", "pin"), [("codex", "CODEX_VERSION"), ("claude", "CLAUDE_CODE_VERSION")])
def test_the_image_has_the_agents_that_its_dockerfile_pins(vm: VM, program: str, pin: str) -> None:
    dockerfile = (ROOT / "docker/Dockerfile.pcc-runner").read_text(encoding="utf-8")
    pinned = re.search(rf"^ARG {pin}=(\d+\.\d+\.\d+)$", dockerfile, re.M)
    assert pinned, "a whole version, nothing that moves"
    said = vm.sh(f"docker run --rm --network none --entrypoint {program} pcc-runner:latest --version").stdout
    assert pinned[1] in said.split()
