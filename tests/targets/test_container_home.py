"""A container's HOME: filled in memory before its command, and its transcripts packed afterwards, whatever is there."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from pccpipe import limits
from pccpipe.docker_api.home import NOT_UNPACKED
from pccpipe.errors import ResultError
from pccpipe.executor.transcripts import NotKept, pack, read_transcripts
from pccpipe.secrets.mask import Masker
from pccpipe.ssh.connection import Connection
from pccpipe.target import PACKED, Exit, HomeFiles
from tests.targets.stand import Stand, read_all, read_until
from tests.targets.test_container import BOX, containers, stand_on
from tests.testbed.vm import VM

KEEPS = HomeFiles(".agent/sessions", ("**/*.jsonl",), limits.TRANSCRIPTS.most)
MASKER = Masker(["sk-a-secret-key"])
DASH, BUSYBOX = "pcc-runner:latest", "bb:latest"


@pytest.fixture
def connections() -> Iterator[list[Connection]]:
    made: list[Connection] = []
    yield made
    for connection in made:
        connection.close()


@pytest.fixture(params=[DASH, BUSYBOX])
def stand(request: pytest.FixtureRequest, vm: VM, connections: list[Connection]) -> Iterator[Stand]:
    made = stand_on(vm, connections, replace(BOX, image=request.param, memory=1 << 30))
    made.target.open()
    yield made
    made.target.close()
    assert containers(vm, made) == []
    vm.sh(f"rm -rf {made.workspace} {made.state}")


def run_and_read(stand: Stand, script: str, keeps: HomeFiles = KEEPS, memory: bytes = b"") -> dict[str, bytes]:
    """Run a script, and return the transcripts that its container packed."""
    running = stand.start(script, keeps=keeps, memory=memory)
    try:
        read_all(running)
        return read_transcripts(running.fetch(PACKED, 40 << 20), keeps, MASKER)
    finally:
        running.discard()


def test_transcripts_go_from_one_container_into_the_next_one_byte_for_byte(stand: Stand) -> None:
    first = run_and_read(
        stand, "mkdir -p ~/.agent/sessions/2026 && printf 'a\\377\\0b\\n' >~/.agent/sessions/2026/x.jsonl"
    )
    assert first == {".agent/sessions/2026/x.jsonl": b"a\xff\0b\n"}
    second = run_and_read(stand, "echo more >>~/.agent/sessions/2026/x.jsonl", memory=pack(first))
    assert second == {".agent/sessions/2026/x.jsonl": b"a\xff\0b\nmore\n"}


def test_32_mib_that_no_program_can_compress_go_in_and_out(stand: Stand) -> None:
    data = random.Random(19).randbytes(KEEPS.most)
    files = {".agent/sessions/x.jsonl": data}
    assert run_and_read(stand, "sha256sum ~/.agent/sessions/x.jsonl", memory=pack(files)) == files


def test_the_files_that_were_put_into_home_are_on_no_disk(stand: Stand, vm: VM) -> None:
    mark = f"transcript-{stand.run_id}"
    running = stand.start("echo up; sleep 100", keeps=KEEPS, memory=pack({".agent/sessions/x.jsonl": mark.encode()}))
    read_until(running, b"up\n")
    found = vm.sh(f"grep -rlF {mark} /var/lib/docker {stand.state} {stand.workspace} /tmp 2>/dev/null || true").stdout
    running.discard()
    assert found == ""


def test_the_command_is_what_it_is_without_transcripts(stand: Stand) -> None:
    script = "cat; echo $PCC_SESSION; echo err >&2; exit 7"
    plain = stand.run(script, env={"PCC_SESSION": "s"})
    kept = stand.run(script, env={"PCC_SESSION": "s"}, keeps=KEEPS, memory=pack({".agent/sessions/x.jsonl": b"x"}))
    assert plain == kept == (b"s\n", b"err\n", Exit(7))


def test_a_stopped_command_ends_in_order_and_its_transcripts_are_packed(stand: Stand) -> None:
    running = stand.start(
        "mkdir -p ~/.agent/sessions; echo 1 >~/.agent/sessions/x.jsonl; echo up; sleep 1000", keeps=KEEPS
    )
    read_until(running, b"up\n")
    running.stop(20.0)
    _, stderr, exit_ = read_all(running, 15)
    assert (stderr, exit_) == (b"", Exit(143, "TERM"))
    packed = running.fetch(PACKED, 40 << 20)
    running.discard()
    assert read_transcripts(packed, KEEPS, MASKER) == {".agent/sessions/x.jsonl": b"1\n"}


def test_links_fifos_logins_and_odd_names_are_not_packed(stand: Stand) -> None:
    made = run_and_read(
        stand,
        """mkdir -p ~/.agent/sessions/sub; cd ~/.agent/sessions
        echo good >sub/a.jsonl; ln -s /etc/passwd l.jsonl; mkfifo f.jsonl; ln -s /etc linked; echo x >auth.json
        echo x >config.toml; echo x >notes.txt; echo x >"$(printf 'a\\n.jsonl')"; echo x >~/other.jsonl
        head -c 40000000 /dev/zero >large.jsonl""",
    )
    assert made == {".agent/sessions/sub/a.jsonl": b"good\n"}


def test_an_archive_larger_than_the_limit_costs_the_machine_no_more_than_that(stand: Stand, vm: VM) -> None:
    small = replace(KEEPS, most=1 << 20)
    running = stand.start(
        """mkdir -p ~/.agent/sessions; cd ~/.agent/sessions
        for i in 1 2 3 4 5 6 7 8 9; do head -c 1000000 /dev/urandom >$i.jsonl; done""",
        keeps=small,
    )
    read_all(running)
    size = int(vm.sh(f"cat {stand.state}/commands/*.out/{PACKED} | wc -c").stdout)
    packed = running.fetch(PACKED, 40 << 20)
    running.discard()
    assert size <= small.most + limits.TRANSCRIPT_HEADS.most
    with pytest.raises(NotKept):
        read_transcripts(packed, small, MASKER)


def test_an_agent_that_takes_the_archives_name_gets_no_file_of_the_host(stand: Stand) -> None:
    running = stand.start(
        f"(sleep 1; ln -sfn /etc/passwd /pcc/out/{PACKED}) & sleep 2; ln -sfn /etc/passwd /pcc/out/{PACKED}"
    )
    read_all(running)
    with pytest.raises(ResultError):
        running.fetch(PACKED, 40 << 20)
    running.discard()


def test_a_home_without_room_starts_the_session_cold_and_says_so(vm: VM, connections: list[Connection]) -> None:
    stand = stand_on(vm, connections, replace(BOX, home_size=1 << 20, memory=1 << 30))
    stand.target.open()
    memory = pack({".agent/sessions/x.jsonl": random.Random(1).randbytes(4 << 20)})
    stdout, stderr, exit_ = stand.run(
        'echo "[$PCC_SESSION]"; ls -A ~/.agent', keeps=KEEPS, memory=memory, env={"PCC_SESSION": "s"}
    )
    stand.target.close()
    assert (stdout, exit_.code) == (b"[]\n", 0)
    assert stderr.decode() == f"{NOT_UNPACKED}\n"
