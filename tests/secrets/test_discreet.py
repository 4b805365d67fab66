from __future__ import annotations

from pccpipe.secrets.proxy.grant import Api
from pccpipe.secrets.values import Secrets
from pccpipe.target import Command
from pccpipe.values import Discreet


def test_a_struct_with_a_secret_names_the_secret_field() -> None:
    assert Command in Discreet.__subclasses__()
    for kind in Discreet.__subclasses__():
        assert kind.hidden, kind
        assert kind.hidden <= set(kind.__struct_fields__), kind


def test_a_secret_is_in_no_repr() -> None:
    api = Api("KEY", "the-key", "https://api.example", ("POST /responses",))
    command = Command("c-1", "c", 1, "true", secrets={"KEY": "the-key"}, way_out="the-key")
    for shown in (repr(api), str(command), f"{[api]}"):
        assert "the-key" not in shown
    assert repr(Secrets({"KEY": "the-key"})) == "Secrets(KEY)"
    shown = "Api(secret='KEY', base='https://api.example', calls=('POST /responses',), rules="
    assert repr(api).startswith(shown)
