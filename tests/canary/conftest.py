from tests.cli.conftest import folder as folder
