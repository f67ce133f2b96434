import re
import shutil
import tempfile
import time

import pytest
from mta import Exim, OpenSmtpd, Postfix
from node import Node, Sink, Smtp, free_port, wait_for
from tap import Tap
from tls_world import Authority

DOWN = {"refused": "550 5.1.1 no such user", "refused-origin": "550 5.1.1 no such user"}


def pytest_collection_modifyitems(config, items):
    """where(f): the test is there only with those MTAs and parameters for which f(mta, parameters) is true."""
    def there(item):
        mark = item.get_closest_marker("where")
        return mark is None or mark.args[0](item.callspec.params["world"], item.callspec.params)

    config.hook.pytest_deselected(items=[item for item in items if not there(item)])
    items[:] = [item for item in items if there(item)]


class World:
    """Weir and another MTA, each with a tap in front of it, and a sink behind both. What is for *.to-mta.example goes through Weir to the MTA, what is for
    *.to-weir.example through the MTA to Weir; at the end it is in the sink, as is everything for elsewhere. Tests tell their messages by the recipients."""

    def __init__(self, mta_class, directory, cert, key):
        self.sink = Sink(decide=self.decide, extensions=("PIPELINING", "8BITMIME", "SMTPUTF8", "DSN", "SIZE 100000000", "ENHANCEDSTATUSCODES"))
        self.to_mta, self.to_bare, self.to_weir, self.to_lmtp = Tap(), Tap(), Tap(), Tap()
        self.mta = self.node = None
        try:
            self.mta = mta_class(cert, key, self.sink.port, self.to_weir.port, self.to_lmtp.port)
            self.to_mta.to, self.to_bare.to = self.mta.port, self.mta.bare
            routes = [f'{{domain: {name}.to-mta.example, to: "smtp:[127.0.0.1]:{port}", tls: {tls}}}'
                      for name, port, tls in (("plain", self.to_mta.port, "never"), ("tls", self.to_mta.port, "must"), ("may", self.to_mta.port, "may"),
                                              ("bare", self.to_bare.port, "never"))]
            routes.append(f'{{domain: "*", to: "smtp:[127.0.0.1]:{self.sink.port}", tls: never}}')
            lmtp = free_port()
            self.node = Node(directory, listeners=[f'{{address: "127.0.0.1:{lmtp}", role: lmtp}}'], routes=f"[{', '.join(routes)}]", name=mta_class.name, workers=1,
                             extra='limits: {message_size: 11M, recipients: 100}\nmail_domains: [{domain: closed.to-weir.example, retired: "was closed last year"}, {domain: closed.lmtp.to-weir.example, retired: "was closed last year"}]\n')
            self.to_weir.to, self.to_lmtp.to = self.node.port, lmtp
        except BaseException:
            self.stop()
            raise

    @staticmethod
    def decide(kind, text):
        return next((DOWN[name] for name in DOWN if f"<{name}@" in text), None) if kind == "rcpt" else None

    def weir_takes(self, size):
        text = self.node.config.read_text()
        self.node.config.write_text(re.sub("message_size: [^,]*,", f"message_size: {size},", text))
        assert self.node.ctl_text("config", "reload").returncode == 0
        assert wait_for(lambda: f"SIZE {int(size[:-1]) << 20}" in self.ehlo())

    def ehlo(self):
        c = Smtp(self.node.port)
        reply = c.cmd("EHLO client.test")
        c.close()
        return reply

    def first_hop(self, way):
        return self.node.port if way == "to-mta" else self.mta.port

    def tap(self, way):
        return self.to_mta if way == "to-mta" else self.to_weir

    def messages(self, rcpt):
        return [m for m in self.sink.messages if rcpt in m["to"]]

    def arrived(self, rcpt, timeout=15):
        """The one message for that recipient."""
        end = time.monotonic() + timeout
        while not (found := wait_for(lambda: self.messages(rcpt), 3)) and time.monotonic() < end:
            self.mta.flush()
        assert found, f"nothing for {rcpt}; {self.node.queue()}\n{self.node.log_text()[-3000:]}\n{self.mta.log_text()[-3000:]}"
        assert len(found) == 1
        return found[0]

    def stop(self):
        for thing in (self.node, self.mta, self.to_mta, self.to_bare, self.to_weir, self.to_lmtp, self.sink):
            if thing:
                thing.stop()


@pytest.fixture(scope="session")
def authority():
    directory = tempfile.mkdtemp(prefix="weir-interop-")
    yield Authority(directory)
    shutil.rmtree(directory)


@pytest.fixture(scope="session", params=(Postfix, Exim, OpenSmtpd), ids=lambda c: c.name)
def world(request, tmp_path_factory, authority):
    w = World(request.param, tmp_path_factory.mktemp("interop"), *authority.issue(f"{request.param.name}.test", rsa=True))  # all of them can RSA
    yield w
    w.stop()
