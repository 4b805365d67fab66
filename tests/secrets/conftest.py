"""Fixtures: a model, and a client of a proxy in front of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pccpipe.secrets.proxy.proxy import Proxy
from tests.secrets.test_proxy import KEY, OPEN, Client
from tests.testbed.model import ModelServer


@pytest.fixture
def model() -> Iterator[ModelServer]:
    with ModelServer(key=KEY) as model:
        yield model


@pytest.fixture(autouse=True)
def nothing_left_open() -> Iterator[None]:
    yield
    while OPEN:
        OPEN.pop().close()


@pytest.fixture
def client(model: ModelServer) -> Client:
    return Client(Proxy(), f"{model.url}/v1")
