"""Where managed mail domains are fetched from: nginx with certificates of a private authority, good ones and bad ones, and a server that does everything wrong. On loopback, free ports."""
import os
import pathlib
import socket
import ssl
import subprocess
import textwrap
import time

from node import free_port, wait_for
from server import Server
from tls_world import Authority

GOOD = "postmaster: pm@cam.example\nwebmaster: web@cam.example\nabuse: ab@cam.example\n"


def aliases(n, extra=""):
    """A good file of n entries."""
    return GOOD + extra + "".join(f"user{i}: u{i}@cam.example\n" for i in range(n - 3 - extra.count("\n")))


class AliasWeb:
    """One nginx, a port for each certificate: good, expired, wrong (another name), other (another authority)."""

    def __init__(self, directory):
        self.dir, self.written = pathlib.Path(directory), 1_000_000_000
        (self.dir / "www/secret").mkdir(parents=True)
        (self.dir / "elsewhere").mkdir()
        self.authority = Authority(self.dir)
        other = Authority(self.dir / "elsewhere")
        self.ca = self.authority.cert
        certs = {"good": self.authority.issue("localhost"), "wrong": self.authority.issue("www.cam.example"), "other": other.issue("localhost")}
        (self.dir / "expired").mkdir()
        expired = Authority.__new__(Authority)
        expired.dir, expired.cert, expired.key = self.dir / "expired", self.authority.cert, self.authority.key
        certs["expired"] = expired.issue("localhost", days=-1)
        self.good = certs["good"]
        self.port = {name: free_port() for name in certs}
        (self.dir / "htpasswd").write_text("dept:{PLAIN}very secret 7\n")
        servers = "".join(textwrap.dedent(f"""\
            server {{
              listen 127.0.0.1:{self.port[name]} ssl;
              ssl_certificate {cert};
              ssl_certificate_key {key};
              root {self.dir}/www;
              location /secret/ {{ auth_basic "aliases"; auth_basic_user_file {self.dir}/htpasswd; }}
              location = /moved {{ return 302 https://localhost:$server_port/secret/dept; }}
              location = /away {{ return 301 https://127.0.0.1:{self.port["wrong"]}/dept; }}
              location = /otherport {{ return 301 https://localhost:{self.port["wrong"]}/dept; }}
              location = /plain {{ return 302 http://localhost:$server_port/dept; }}
              location = /loop {{ return 302 https://localhost:$server_port/loop; }}
              location = /broken {{ return 503; }}
            }}
            """) for name, (cert, key) in certs.items())
        conf = self.dir / "nginx.conf"
        conf.write_text(textwrap.dedent(f"""\
            daemon off;
            master_process off;
            pid {self.dir}/nginx.pid;
            error_log {self.dir}/nginx.err;
            events {{ worker_connections 64; }}
            http {{
              log_format mine '$status $request_uri $remote_user';
              access_log {self.dir}/nginx.log mine;
              client_body_temp_path {self.dir}/t1; proxy_temp_path {self.dir}/t2; fastcgi_temp_path {self.dir}/t3;
              uwsgi_temp_path {self.dir}/t4; scgi_temp_path {self.dir}/t5;
              default_type application/octet-stream;
            """) + servers + "}\n")
        self.proc = subprocess.Popen(["nginx", "-p", self.dir, "-c", conf], stderr=subprocess.DEVNULL)
        assert wait_for(lambda: all(self._listens(p) for p in self.port.values())), (self.dir / "nginx.err").read_text()

    @staticmethod
    def _listens(port):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return True
        except OSError:
            return False

    def url(self, path="dept", cert="good", host="localhost"):
        return f"https://{host}:{self.port[cert]}/{path}"

    def write(self, path, text):
        """Each time another second, however soon: nginx knows a new text of the same length by that alone."""
        new = self.dir / "www" / (path + ".new")
        new.write_bytes(text if isinstance(text, bytes) else text.encode())
        self.written += 1
        os.utime(new, (self.written, self.written))
        new.rename(self.dir / "www" / path)

    def log(self):
        """Lines "STATUS PATH USER"."""
        return (self.dir / "nginx.log").read_text().splitlines()

    def stop(self):
        self.proc.terminate()
        self.proc.wait(10)


class NastyWeb(Server):
    """https, spoken badly; what is wrong is the path that is asked for."""

    def __init__(self, cert, key):
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(cert, key)
        self.stopped = False
        super().__init__()

    def url(self, path):
        return f"https://localhost:{self.port}/{path}"

    def _session(self, s):
        try:
            s.settimeout(30)
            s = self.context.wrap_socket(s, server_side=True)
            head = b""
            while b"\r\n\r\n" not in head:
                head += s.recv(4096)
            getattr(self, head.split()[1].decode().strip("/"))(s)
        except (OSError, ValueError):
            pass
        finally:
            s.close()

    def slow(self, s):
        s.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while not self.stopped:
            s.sendall(b"#")
            time.sleep(0.2)

    def endless(self, s):
        s.sendall(b"HTTP/1.1 200 OK\r\n\r\n" + GOOD.encode())
        while not self.stopped:
            s.sendall(b"# and so on\n" * 1000)

    def half(self, s):
        s.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + GOOD.encode())

    def chunks(self, s):
        text = GOOD.encode()
        s.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n" % len(text) + text + b"\r\n")

    def cut(self, s):
        """No length, and the connection ends without TLS saying so."""
        s.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + GOOD.encode())
        socket.close(s.detach())

    def garbage(self, s):
        s.sendall(bytes(range(256)) * 40)

    def stop(self):
        self.stopped = True
        super().stop()
