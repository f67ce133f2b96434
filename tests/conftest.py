import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "support"))

from node import Node, Sink  # noqa: E402


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """IN_CHECK of a file: those of its tests that are not long."""
    for item in items:
        if item.name not in getattr(item.module, "IN_CHECK", {item.name}):
            item.add_marker("long")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item):
    """For who tidies up: whether the test failed."""
    outcome = yield
    item.failed = getattr(item, "failed", False) or outcome.get_result().failed


@pytest.fixture
def sink():
    s = Sink()
    yield s
    s.stop()


@pytest.fixture
def make_sink():
    made = []

    def make(**kw):
        made.append(Sink(**kw))
        return made[-1]

    yield make
    for s in made:
        s.stop()


@pytest.fixture
def make_node(tmp_path_factory, request):
    """Nodes that are stopped when the test ends; their spools go, 80 MB and more each, unless it failed."""
    made = []

    def make(sink_port=None, **kw):
        made.append(Node(tmp_path_factory.mktemp("weir", numbered=True), sink_port, **kw))
        return made[-1]

    yield make
    for n in made:
        n.stop()
        if not request.node.failed:
            n.drop_spool()


@pytest.fixture
def node(make_node, sink):
    return make_node(sink.port)
