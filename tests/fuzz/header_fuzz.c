/* The header's reader takes the text in order and leaves nothing out, its fields end where RFC 5322 2.2 says, and what follows the header changes nothing. The Received field that is added is
 * one field whatever the client said of itself (B6, P11), and makes the header longer by one.
 *
 * Input: a byte of envelope flags, HELO, client name and recipient, each ended by 0xff, then the header. */
#include <stdlib.h>
#include "spool/mail/address.h"
#include "spool/mail/header.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void check_field(struct span before, struct span name, struct span value, struct span rest)
{
	const char *colon = value.p - 1;

	CHECK(name.p == before.p && name.n && *colon == ':' && value.p + value.n == rest.p && rest.p + rest.n == before.p + before.n);
	for (size_t i = 0; i < name.n; i++)
		CHECK(name.p[i] > ' ' && name.p[i] < 0x7f && name.p[i] != ':');
	for (const char *p = name.p + name.n; p < colon; p++)
		CHECK(*p == ' ' || *p == '\t');
	for (size_t i = 0; i + 1 < value.n; i++)
		CHECK(value.p[i] != '\n' || value.p[i + 1] == ' ' || value.p[i + 1] == '\t');
	CHECK(!rest.n || (value.n && value.p[value.n - 1] == '\n' && rest.p[0] != ' ' && rest.p[0] != '\t'));
}

/* Gives how many are Received fields, and what is not of the header. */
static unsigned check_fields(struct span head, struct span *ret_rest)
{
	struct span name, value, before = head;
	unsigned received = 0;

	while (header_next(&head, &name, &value)) {
		check_field(before, name, value, head);
		received += span_eq_nocase(name, SPAN("received"));
		before = head;
	}
	CHECK(span_eq(before, head));
	*ret_rest = head;
	return received;
}

static void check_received(const struct envelope *e, const struct received_facts *f, struct span head, unsigned received)
{
	size_t cap = head.n + 4096;
	char *text = malloc(cap);
	struct out o = out_of(text, cap);
	struct span rest, name, value;
	size_t line = 0;

	CHECK(text);
	received_write(e, f, &o);
	CHECK(!o.over);
	for (size_t i = 0; i < o.n; i++) {
		CHECK((text[i] & 0x80 ? f->rcpt.n != 0 : text[i] >= ' ' && text[i] != 0x7f) || text[i] == '\t' || (text[i] == '\r' && text[i + 1] == '\n') ||
			(text[i] == '\n' && text[i - 1] == '\r'));
		line = text[i] == '\n' ? 0 : line + 1;
		CHECK(line <= 999);
	}
	rest = out_span(&o);
	CHECK(header_next(&rest, &name, &value) && span_eq(name, SPAN("Received")) && !rest.n);
	if (head.n && head.p[0] != ' ' && head.p[0] != '\t') {
		out_add(&o, head);
		CHECK(header_count_received(out_span(&o)) == received + 1);
	}
	free(text);
}

/* What follows the empty line is not read. */
static void check_end(struct span head, const struct envelope *e, unsigned received)
{
	char *text = malloc(head.n + 64);
	struct out o = out_of(text, head.n + 64);

	CHECK(text);
	out_add(&o, head);
	out_str(&o, "\r\nReceived: x\r\nTLS-Required: No\r\nX: \xc3\xbc\r\n");
	CHECK(header_count_received(out_span(&o)) == received && header_flags(out_span(&o), e) == header_flags(head, e));
	free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct span in = span_of(data + 1, n ? n - 1 : 0), head, rest;
	struct envelope e = { .client_ip = { [10] = 0xff, 0xff, 192, 0, 2, 1 } };
	struct received_facts f = { .hostname = SPAN("relay.cam.example"), .id = SPAN("1-2") };
	struct address a;
	unsigned received;
	uint32_t flags;

	if (!n)
		return 0;
	e.flags = data[0];
	e.body = data[0] & 1 ? BODY_8BITMIME : BODY_7BIT;
	e.helo = span_cut(&in, (char)0xff);
	e.client_name = span_cut(&in, (char)0xff);
	f.rcpt = span_cut(&in, (char)0xff);
	if (address_parse(f.rcpt, ADDRESS_UTF8, &a) != ST_OK)
		f.rcpt = SPAN("");
	head = in;
	received = check_fields(header_fields(head), &rest);
	CHECK(header_count_received(head) == received);
	flags = header_flags(head, &e);
	CHECK((flags & ~(uint32_t)(ENV_TLS_OPTIONAL | ENV_8BIT_HEADER | ENV_NO_HEADER)) == 0);
	CHECK(!(flags & ENV_NO_HEADER) || (!received && rest.n == header_fields(head).n));
	CHECK(!(flags & ENV_TLS_OPTIONAL) || !(e.flags & ENV_REQUIRETLS));
	head.n -= rest.n;
	if ((!head.n || head.p[head.n - 1] == '\n') && !(flags & ENV_NO_HEADER))
		check_end(head, &e, received);
	check_received(&e, &f, in, received);
	return 0;
}
