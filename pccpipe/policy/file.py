"""Reads the policy file. Its path comes from the operator alone: no workspace, pipeline or project file names one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

from msgspec.structs import replace

from pccpipe.outcome import Place
from pccpipe.policy.policy import Ceilings, Origin, Policy, SecretRule
from pccpipe.spec import units
from pccpipe.spec.data import listed, mapping
from pccpipe.spec.load import load_source
from pccpipe.spec.paths import beside
from pccpipe.values import Json

_NAMES = {"env": "name", "file": "path", "command": "command"}


def load_policy(path: str | Path) -> Policy:
    """Read a policy from its file. Raises SpecError with every problem, UsageError if the file can't be read."""
    path = Path(path)
    source = load_source(path, "policy", lambda _: [])
    data = cast("Mapping[str, Json]", source.data)
    policy = Policy.untrusted() if data.get("preset", "untrusted") == "untrusted" else Policy.operator()
    changes: dict[str, object] = {}
    for key in ("places", "fallbacks"):
        if key in data:
            changes[key] = frozenset(Place(word) for word in _words(data[key]))
    for key in ("hosts", "vms", "images", "loosened"):
        if key in data:
            changes[key] = tuple(_words(data[key]))
    if "digests" in data:
        changes["digests_required"] = data["digests"] == "required"
    if "folders" in data:
        changes["folders"] = tuple(beside(path.parent, name).absolute() for name in _words(data["folders"]))
    if "secrets" in data:
        changes["secrets"] = {name: _rule(name, mapping(spec)) for name, spec in mapping(data["secrets"]).items()}
    if "ceilings" in data:
        changes["ceilings"] = _ceilings(mapping(data["ceilings"]), policy.ceilings)
    return replace(policy, **changes)


def _rule(name: str, spec: Mapping[str, Json]) -> SecretRule:
    origin = Origin(str(spec.get("from", "caller")))
    given = spec.get(_NAMES.get(origin.value, ""), name if origin is Origin.ENV else "")
    return SecretRule(
        origin,
        str(given),
        str(spec.get("via", "proxy")),
        str(spec.get("upstream", "")),
        *(tuple(_words(spec.get(key))) for key in ("models", "allow", "service_tiers", "hosted_tools")),
    )


def _ceilings(spec: Mapping[str, Json], base: Ceilings) -> Ceilings:
    return Ceilings(
        timeout=units.seconds(cast("str | float", spec["timeout"])) if "timeout" in spec else base.timeout,
        tokens=units.tokens(cast("str | int", spec["tokens"])) if "tokens" in spec else base.tokens,
        usd=float(cast("float", spec["usd"])) if "usd" in spec else base.usd,
        run_tokens=units.tokens(cast("str | int", spec["run_tokens"])) if "run_tokens" in spec else base.run_tokens,
        run_usd=float(cast("float", spec["run_usd"])) if "run_usd" in spec else base.run_usd,
        logs=units.size(cast("str | int", spec["logs"])) if "logs" in spec else base.logs,
        log=units.size(cast("str | int", spec["log"])) if "log" in spec else base.log,
    )


def _words(value: Json) -> list[str]:
    return [str(each) for each in listed(value)]
