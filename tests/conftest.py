pytest_plugins = ["tests.testbed.fixtures", "tests.e2e.fixtures", "tests.disk"]
