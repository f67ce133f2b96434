/* What a route says about its mail beside where it goes: how long it is tried (F2), how large it may be (A7), that it waits (F2), where connections come from (F1), whom they say they are (A9, F4). */
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>
#include "control/holds.h"
#include "control/model.h"
#include "control/when.h"
#include "spool/mail/address.h"

static const char *const members[] = { TERMS_MEMBERS };

bool route_terms_any(struct reader *r, const yaml_node_t *item)
{
	for (size_t i = 0; i < sizeof(members) / sizeof(members[0]); i++)
		if (strcmp(members[i], "source") != 0 && member(r, item, members[i])) /* of a mail domain it may be that of its aliases */
			return true;
	return false;
}

static void read_times(struct reader *r, const yaml_node_t *item, struct snap_route *t)
{
	const yaml_node_t *life = member(r, item, "life"), *notice = member(r, item, "delay_notice");

	t->notice_ns = UINT64_MAX;
	if (life && scalar(life) && strcmp(scalar(life), "unlimited") == 0)
		t->life_ns = UINT64_MAX;
	else if (life && (!scalar(life) || !parse_duration(scalar(life), &t->life_ns) || t->life_ns < 1000000000))
		complain(r->m, life, "routes: life \"%s\" is not possible; write for example 12h or 30d (at least 1s), or unlimited", scalar(life) ? scalar(life) : "");
	if (notice && scalar(notice) && find_word((const char *const[]){ "off", "no", NULL }, scalar(notice)) >= 0)
		t->notice_ns = 0;
	else if (notice && (!scalar(notice) || !parse_duration(scalar(notice), &t->notice_ns)))
		complain(r->m, notice, "routes: delay_notice \"%s\" is not possible; write for example 4h, or off", scalar(notice) ? scalar(notice) : "");
}

static void read_size(struct reader *r, const yaml_node_t *item, struct snap_route *t)
{
	const yaml_node_t *size = member(r, item, "size");

	if (size && (!scalar(size) || !parse_size(scalar(size), &t->size_max) || !t->size_max))
		complain(r->m, size, "routes: size \"%s\" is not possible; write for example 512K or 25M", scalar(size) ? scalar(size) : "");
}

static void read_hold(struct reader *r, const yaml_node_t *item, struct snap_route *t)
{
	const yaml_node_t *hold = member(r, item, "hold"), *until = member(r, item, "hold_until"), *why = member(r, item, "hold_reason");
	const char *reason = scalar(why) ? scalar(why) : "";
	int on = scalar(hold) ? find_word((const char *const[]){ "no", "yes", "false", "true", NULL }, scalar(hold)) : -1;

	if (hold && on < 0)
		complain(r->m, hold, "routes: hold is yes or no; a date is written as hold_until");
	if (hold && until)
		complain(r->m, until, "routes: a route has hold or hold_until, not both");
	if (until && (!scalar(until) || !when_parse(scalar(until), &t->hold_set_ns)))
		complain(r->m, until, "routes: hold_until \"%s\" is not a date; write for example 2027-01-05T08:00 (UTC)", scalar(until) ? scalar(until) : "");
	if (why && (!scalar(why) || strlen(reason) > 200 || strpbrk(reason, "\r\n")))
		complain(r->m, why, "routes: hold_reason is one line of at most 200 characters");
	if (hold && (on & 1))
		t->hold_set_ns = UINT64_MAX;
	t->hold_until_ns = t->hold_set_ns;
	t->hold_reason = model_add_str(r->m, span_str(reason));
}

/* ---- source addresses ---- */

static bool read_source(struct reader *r, const yaml_node_t *at, struct snap_range *s)
{
	const char *text = scalar(at);

	*s = (struct snap_range){ .prefix = 128, .line = at ? (uint32_t)at->start_mark.line + 1 : 0 };
	if (text && ip_parse(span_str(text), s->ip) == ST_OK)
		return true;
	complain(r->m, at, "source: \"%s\" is not an address; write for example 192.0.2.25 or \"2001:db8::25\"", text ? text : "");
	return false;
}

void row_source(struct reader *r, const yaml_node_t *item, void *row)
{
	read_source(r, item, row);
}

static void read_sources(struct reader *r, const yaml_node_t *item, struct snap_route *t)
{
	const yaml_node_t *list = member(r, item, "source");
	struct snap_range s[16];
	uint32_t n = 0;

	if (!list)
		return;
	if (list->type == YAML_SEQUENCE_NODE) {
		if (list->data.sequence.items.top - list->data.sequence.items.start > 16)
			complain(r->m, list, "source: at most 16 addresses");
		for (yaml_node_item_t *i = list->data.sequence.items.start; i < list->data.sequence.items.top && n < 16; i++)
			n += read_source(r, yaml_document_get_node(r->doc, *i), &s[n]);
	} else {
		n = read_source(r, list, &s[0]);
	}
	t->sources = model_add_list(r->m, s, n, sizeof(s[0]));
}

void route_terms_read(struct reader *r, const yaml_node_t *item, struct snap_route *t)
{
	read_times(r, item, t);
	read_size(r, item, t);
	read_hold(r, item, t);
	read_sources(r, item, t);
	route_certificate_read(r, item, t);
	route_login_read(r, item, t);
}

/* ---- all of them ---- */

static bool is_ours(const uint8_t ip[16])
{
	struct sockaddr_in6 to = { .sin6_family = AF_INET6 };
	int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0), off = 0;
	bool ours;

	if (fd < 0)
		return true; /* a kernel without IPv6: it shows at the first delivery */
	memcpy(&to.sin6_addr, ip, 16);
	setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
	ours = bind(fd, (struct sockaddr *)&to, sizeof(to)) == 0 || errno != EADDRNOTAVAIL;
	close(fd);
	return ours;
}

/* One configuration may serve several nodes, each of which uses what it has: no error. */
static void check_sources(struct model *m, struct snap_list l)
{
	const struct snap_range *s = (const struct snap_range *)(const void *)(m->bytes + l.off);

	for (uint32_t i = 0; i < l.n; i++) {
		char text[48];
		struct out o = out_of(text, sizeof(text));

		ip_write(s[i].ip, &o);
		if (model_settings(m)->transport)
			warn_line(m, s[i].line, "source: %.*s has no effect with transport: dpdk", SPAN_FMT(out_span(&o)));
		else if (!is_ours(s[i].ip))
			warn_line(m, s[i].line, "source: %.*s is not an address of this machine", SPAN_FMT(out_span(&o)));
	}
}

void terms_together(struct model *m)
{
	struct snap_list l = model_settings(m)->routes;
	struct snap_route *t = (struct snap_route *)(void *)(m->bytes + l.off);

	check_sources(m, model_settings(m)->sources);
	for (uint32_t i = 0; i < l.n; i++)
		check_sources(m, t[i].sources);
	holds_apply(m);
}
