"""The policy itself: plain data, with its two presets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from pathlib import Path

from msgspec import Struct, field

from pccpipe.outcome import Place


class Origin(StrEnum):
    """Where the value of a secret comes from: a pipeline's three sources, or the call of the library."""

    CALLER = "caller"
    """The argument `secrets=` of `run` and `resume`."""
    ENV = "env"
    FILE = "file"
    COMMAND = "command"


class SecretRule(Struct, frozen=True):
    """One secret that pipelines may name, as the operator fixed it.

    Attributes:
        origin: where its value comes from.
        name: the variable, the file's path or the command line; empty for `caller`, and for a variable of its own name.
        via: `proxy` keeps the value on the controller: a pipeline that gives it to a step directly is refused.
        upstream: with `via: proxy`, the only base URL that may get the value.
        models: patterns of the models that may be asked for; empty: all.
        allow, service_tiers, hosted_tools: what a pipeline may list under these keys; empty: it may not set them.
    """

    origin: Origin = Origin.CALLER
    name: str = ""
    via: str = "proxy"
    upstream: str = ""
    models: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()
    service_tiers: tuple[str, ...] = ()
    hosted_tools: tuple[str, ...] = ()


class Ceilings(Struct, frozen=True):
    """The most that a pipeline may ask for. None: no ceiling.

    Attributes:
        timeout: seconds that a run may take. A pipeline without `timeout:` gets this one.
        tokens: of the budget of each step with a secret `via: proxy`. A step without `budget:` gets this one.
        usd: the same in USD, by estimate. Models without a price are then refused.
        run_tokens, run_usd: of the budget of a run. A pipeline without `budget:` gets these.
        log: bytes that are kept of a step's output.
        logs: bytes that all logs of a run may take together, as `log_quota` of a project file says it.
    """

    timeout: float | None = None
    tokens: int | None = None
    usd: float | None = None
    run_tokens: int | None = None
    run_usd: float | None = None
    log: int | None = None
    logs: int | None = None


class Policy(Struct, frozen=True, kw_only=True):
    """What a pipeline and a project file may ask for. None allows everything of its kind; an empty tuple nothing.

    Attributes:
        places: where steps may run, after the project's `isolation_mode`. With the mode `container`, containers are on
            the controller's own engine: that needs `local` as well.
        fallbacks: the places where a fallback may lead.
        secrets: the secrets that pipelines may name, with source and upstream fixed.
        folders: where the files that a pipeline or project file names must lie, after resolving links. The folder of
            the pipeline, or of the project file, always counts, and so do the files that come with pccpipe.
        hosts: what `egress:` may name: `example.org`, `*.example.org`, `10.0.0.7:8080`.
        vms: the hosts that a project file may name: `external_ip` and `proxy_jump`.
        images: patterns of images, with `*`; one that is listed without a pattern needs no digest.
        digests_required: refuses an image without `@sha256:`.
        loosened: the container settings with less isolation than by default that are allowed, as `plan` shows them:
            `user: root`, `network: host`; and `account: login` of a step.
        ceilings: the most that may be asked for.
    """

    places: frozenset[Place] | None = None
    fallbacks: frozenset[Place] | None = None
    secrets: Mapping[str, SecretRule] | None = None
    folders: tuple[Path, ...] | None = None
    hosts: tuple[str, ...] | None = None
    vms: tuple[str, ...] | None = None
    images: tuple[str, ...] | None = None
    digests_required: bool = False
    loosened: tuple[str, ...] | None = None
    ceilings: Ceilings = field(default_factory=Ceilings)

    @classmethod
    def operator(cls) -> Policy:
        """Return the policy for the operator's own pipelines: everything is allowed."""
        return cls()

    @classmethod
    def untrusted(
        cls,
        *,
        places: Iterable[Place] = (Place.VM, Place.CONTAINER),
        secrets: Mapping[str, SecretRule] | None = None,
        folders: Iterable[Path] = (),
        hosts: Iterable[str] = (),
        vms: Iterable[str] = (),
        images: Iterable[str] = (),
        ceilings: Ceilings = Ceilings(timeout=4 * 3600.0, tokens=20_000_000),  # noqa: B008  frozen
    ) -> Policy:
        """Return the policy for a project's own pipeline on a server: what is not given here is refused.

        Without arguments: steps run on the VM and in containers and fall back nowhere; no secret, no file outside of
        the pipeline's folder, no way out of a container, no image without a digest, no loosened container.
        """
        return cls(
            places=frozenset(places),
            fallbacks=frozenset(),
            secrets=dict(secrets or {}),
            folders=tuple(folders),
            hosts=tuple(hosts),
            vms=tuple(vms),
            images=(*images, "*"),
            digests_required=True,
            loosened=(),
            ceilings=ceilings,
        )
