"""Cases: the traps that a new relay falls into, as promises.md lists them; those of delivery are in test_traps.py."""
from cases_content import CHUNK, EVIL, ORDER, REFUSED, TLS_WAYS
from suite import CLOSED, DATA, GONE, HALF, HEAD, HELLO, MAIL, NOTIFY, OPEN, PAUSE, QUIET, RCPT, SENT, TAKEN, TEXT, Case, Notified, Past

# Where a buffer, a segment or a line limit might split a line.
SPLITS = (510, 512, 997, 998, 999, 1000, 1023, 1024, 2046, 2047, 2048, 4095, 4096, 8191, 8192, 16383, 16384)
LONG = b"\r\n".join(b"y" * n + b".\r\n" + b"z" * (n - 1) + b"..z" for n in SPLITS[:12]) + b"\r\n"

CASES = [
    # 1. plaintext after TLS close_notify: never read (P4)
    Case("trap-1-plaintext-after-close-notify", [*OPEN, NOTIFY, PAUSE, (Past(b"DATA\r\n" + TEXT + b".\r\n"),), CLOSED], ways=TLS_WAYS),
    Case("trap-1-plaintext-with-close-notify-in-data", [*OPEN, DATA, (TEXT,), (Notified(b".\r\n"),), CLOSED], ways=TLS_WAYS),
    # 2. BDAT sizes that wrap (P9): 5 modulo 2^64 is not 5
    *[Case(f"trap-2-bdat-{name}", [*OPEN, (b"BDAT %d LAST\r\nSubje" % n + EVIL, "501 5.5.4"), CLOSED]) for name, n in {
        "2-63-and-5": (1 << 63) + 5, "2-64-and-5": (1 << 64) + 5, "2-65-and-5": (1 << 65) + 5, "2-128-and-5": (1 << 128) + 5}.items()],
    Case("trap-2-bdat-2-32-and-5", [*OPEN, (b"BDAT %d LAST\r\nSubjeNOOP\r\n" % ((1 << 32) + 5),), QUIET, HALF, CLOSED]),
    # 3. a lone-dot line received by BDAT and sent on by DATA (P3): the sink takes DATA only
    Case("trap-3-lone-dot-by-bdat", [*OPEN, (b"BDAT %d LAST\r\n" % len(HEAD + b".\r\n" + EVIL) + HEAD + b".\r\n" + EVIL, TAKEN)], gets=(HEAD + b".\r\n" + EVIL,)),
    Case("trap-3-lone-dot-in-chunks", [*OPEN, (b"BDAT 5\r\nx\r\n.\r", CHUNK), (b"BDAT %d LAST\r\n\n" % (1 + len(EVIL)) + EVIL, TAKEN)], gets=(b"x\r\n.\r\n" + EVIL,)),
    Case("trap-3-dot-first-by-bdat", [*OPEN, (b"BDAT 3\r\n.\r\n", CHUNK), (b"BDAT 1 LAST\r\n.", TAKEN)], gets=(b".\r\n.\r\n",)),
    # 4. CR CR LF end markers (P3)
    *[Case(f"trap-4-{name}", [*OPEN, DATA, (HEAD + b"x" + end + EVIL, REFUSED), CLOSED]) for name, end in {
        "cr-cr-lf-dot-cr-cr-lf": b"\r\r\n.\r\r\n", "crlf-dot-cr-cr-lf": b"\r\n.\r\r\n", "cr-crlf-dot-crlf": b"\r\r\n.\r\n", "cr-cr-lf-dot-crlf": b"\r\r\n.\r\n"}.items()],
    # 5. a dot that lands first after a long line is split: no line ever is
    *[Case(f"trap-5-dot-at-{n}", [*OPEN, DATA, (HEAD + b"y" * n + b".\r\n" + b"z" * n + b"..\r\n.\r\n", TAKEN)], gets=(HEAD + b"y" * n + b".\r\n" + b"z" * n + b"..\r\n",))
      for n in SPLITS],
    Case("trap-5-dots-everywhere", [*OPEN, DATA, (LONG + b".\r\n", TAKEN)], gets=(LONG,)),
    Case("trap-5-dots-by-bdat", [*OPEN, (b"BDAT %d LAST\r\n" % len(LONG) + LONG, TAKEN)], gets=(LONG,)),
    # 6. octets of a refused BDAT read as commands (P9)
    Case("trap-6-refused-bdat", [HELLO, (b"BDAT %d LAST\r\n" % len(EVIL) + EVIL, ORDER), ("NOOP", "250 2.0.0")]),
    Case("trap-6-refused-bdat-without-recipients", [HELLO, MAIL, (b"BDAT %d LAST\r\n" % len(EVIL) + EVIL, "554 5.5.1"), RCPT, *SENT], gets=(TEXT,)),
    Case("trap-6-chunks-behind-a-refused-one", [*OPEN, (b"BDAT 1\r\n\0BDAT %d\r\n" % len(EVIL) + EVIL + b"BDAT %d LAST\r\n" % len(EVIL) + EVIL, REFUSED, ORDER, ORDER), MAIL, RCPT,
                                                *SENT], gets=(TEXT,)),
    # 7. the tail of an overlong line read as a command (P9)
    *[Case(f"trap-7-tail-at-{n}", [*OPEN, (b"X" * n + b"QUIT\r\n", "500 5.5.2"), *SENT], gets=(TEXT,)) for n in (2043, 2048, 4096, 8192, 65536)],
    Case("trap-7-tail-is-a-transaction", [HELLO, (b"RSET " + b" " * 4096 + EVIL.replace(b"\r\n", b" ") + b"\r\n", "500 5.5.2"), MAIL, RCPT, *SENT], gets=(TEXT,)),
    # early end: the whole of it never came
    Case("trap-1-truncated-in-a-chunk", [*OPEN, (b"BDAT %d LAST\r\n" % (len(TEXT) + 1) + TEXT,), HALF, GONE], ways=("plain",)),
]
