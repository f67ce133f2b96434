/* Rows and frames of the ledger, as they are on the disk. FORMAT.md says the same in prose. */
#include "spool/store/ledger.h"

#include <stdio.h>
#include <string.h>
#include <time.h>
#include "spool/base/hash.h"
#include "spool/base/clock.h"

/* Which members follow the fixed part, in this order. */
enum field { ARRIVED = 1, ARRIVED_S = 2, SIZE = 4, TO = 8, NRCPT = 16, RCPT = 32, REPLY = 64, CLIENT = 128, SENDER = 256, HELO = 512, REMOTE = 1024,
	TEXT = 2048, ADDRS = 4096 };

static const uint16_t fields[LEDGER_NTYPE] = {
	[LEDGER_MARK] = SIZE,
	[LEDGER_BEGIN] = SIZE,
	[LEDGER_GAP] = SIZE | TO,
	[LEDGER_ACCEPTED] = ARRIVED | SIZE | NRCPT | CLIENT | SENDER | HELO | TEXT | ADDRS,
	[LEDGER_RCPTS] = RCPT | ADDRS,
	[LEDGER_FATE] = ARRIVED_S | RCPT | REPLY | REMOTE | TEXT,
	[LEDGER_STATE] = ARRIVED_S | TEXT,
	[LEDGER_REFUSED] = SIZE | NRCPT | REPLY | CLIENT | SENDER | HELO | TEXT | ADDRS,
	[LEDGER_GIVEN] = NRCPT | RCPT | ADDRS,
};

enum { FIXED = 1 + 1 + 2 + 8 + 8 };

static void text_write(struct out *o, struct span s, size_t max)
{
	if (s.n > max)
		s.n = max;
	out_char(o, (char)s.n);
	if (s.n)
		out_add(o, s);
}

static struct span text_read(struct in *i)
{
	return in_bytes(i, in_u8(i));
}

static struct span long_read(struct in *i)
{
	return in_bytes(i, in_le16(i));
}

void ledger_addr_write(struct out *o, struct span addr)
{
	out_le16(o, (uint16_t)addr.n);
	if (addr.n)
		out_add(o, addr);
}

bool ledger_addr_read(struct span *addrs, struct span *ret)
{
	struct in i = in_of(*addrs);

	*ret = long_read(&i);
	*addrs = i.rest;
	return !i.bad;
}

void ledger_row_write(const struct ledger_row *r, struct out *o)
{
	unsigned f = fields[r->type];
	size_t at = o->n;

	out_char(o, (char)r->type);
	out_char(o, (char)r->state);
	out_le16(o, 0);
	out_le64(o, r->id);
	out_le64(o, r->at_ns);
	if (f & ARRIVED)
		out_le64(o, r->arrived_ns);
	if (f & ARRIVED_S)
		out_le32(o, (uint32_t)(r->arrived_ns / NS_PER_S));
	if (f & SIZE)
		out_le64(o, r->size);
	if (f & TO)
		out_le64(o, r->to);
	if (f & NRCPT)
		out_le32(o, r->nrcpt);
	if (f & RCPT)
		out_le32(o, r->rcpt);
	if (f & REPLY) {
		out_le16(o, r->attempts);
		out_le16(o, r->code);
		out_add(o, span_of(r->enhanced, 3));
	}
	if (f & CLIENT) {
		out_char(o, (char)r->flags);
		out_add(o, span_of(r->client_ip, 16));
	}
	if (f & SENDER)
		ledger_addr_write(o, r->sender);
	if (f & HELO)
		text_write(o, r->helo, 64);
	if (f & REMOTE)
		text_write(o, r->remote, LEDGER_TEXT_MAX);
	if (f & TEXT)
		text_write(o, r->text, LEDGER_TEXT_MAX);
	if (f & ADDRS)
		out_add(o, r->addrs);
	if (!o->over) {
		o->p[at + 2] = (char)(o->n - at);
		o->p[at + 3] = (char)((o->n - at) >> 8);
	}
}

bool ledger_row_read(struct span *s, struct ledger_row *ret)
{
	struct in i = in_of(*s), all = i;
	struct span ip, three;
	unsigned f;
	size_t n;

	*ret = (struct ledger_row){ .type = in_u8(&i), .state = in_u8(&i) };
	n = in_le16(&i);
	if (i.bad || n < FIXED || n > s->n || ret->type >= LEDGER_NTYPE)
		return false;
	i = in_of(span_skip(in_bytes(&all, n), 4));
	ret->id = in_le64(&i);
	ret->at_ns = in_le64(&i);
	f = fields[ret->type];
	ret->arrived_ns = f & ARRIVED ? in_le64(&i) : f & ARRIVED_S ? in_le32(&i) * NS_PER_S : 0;
	ret->size = f & SIZE ? in_le64(&i) : 0;
	ret->to = f & TO ? in_le64(&i) : 0;
	ret->nrcpt = f & NRCPT ? in_le32(&i) : 0;
	ret->rcpt = f & RCPT ? in_le32(&i) : 0;
	if (f & REPLY) {
		ret->attempts = in_le16(&i);
		ret->code = in_le16(&i);
		three = in_bytes(&i, 3);
		memcpy(ret->enhanced, three.n ? three.p : "\0\0", 3);
	}
	if (f & CLIENT) {
		ret->flags = in_u8(&i);
		ip = in_bytes(&i, 16);
		if (ip.n)
			memcpy(ret->client_ip, ip.p, 16);
	}
	ret->sender = f & SENDER ? long_read(&i) : SPAN_NONE;
	ret->helo = f & HELO ? text_read(&i) : SPAN_NONE;
	ret->remote = f & REMOTE ? text_read(&i) : SPAN_NONE;
	ret->text = f & TEXT ? text_read(&i) : SPAN_NONE;
	ret->addrs = f & ADDRS ? i.rest : SPAN_NONE;
	*s = span_skip(*s, n);
	return !i.bad;
}

/* ---- frames ---- */

void ledger_frame_seal(char *p, struct ledger_frame *f, uint32_t partition)
{
	f->magic = LEDGER_MAGIC;
	f->checksum = 0;
	memcpy(p, f, sizeof(*f));
	f->checksum = XXH3_64bits_withSeed(p, f->bytes, partition + 1);
	memcpy(p, f, sizeof(*f));
}

uint32_t ledger_frame_valid(const char *p, size_t n, uint32_t partition, struct ledger_frame *ret)
{
	struct ledger_frame f;
	char copy[LEDGER_PAGE];

	if (n < sizeof(f))
		return 0;
	memcpy(&f, p, sizeof(f));
	if (f.magic != LEDGER_MAGIC || f.bytes > n || f.bytes > LEDGER_PAGE || f.bytes % 8 || f.bytes < sizeof(f) ||
		f.record_bytes > f.bytes - sizeof(f))
		return 0;
	*ret = f;
	f.checksum = 0;
	memcpy(copy, &f, sizeof(f));
	memcpy(copy + sizeof(f), p + sizeof(f), f.bytes - sizeof(f));
	return XXH3_64bits_withSeed(copy, f.bytes, partition + 1) == ret->checksum ? f.bytes : 0;
}

/* ---- names ---- */

void ledger_name(uint32_t day, char ret[LEDGER_NAME])
{
	time_t t = (time_t)day * 86400;
	struct tm tm;

	gmtime_r(&t, &tm);
	snprintf(ret, LEDGER_NAME, "ledger-%04u%02u%02u", (unsigned)(tm.tm_year + 1900) % 10000, (unsigned)(tm.tm_mon + 1) % 100,
		(unsigned)tm.tm_mday % 100);
}

bool ledger_name_day(const char *name, uint32_t *ret_day)
{
	struct tm tm = { 0 };
	char again[LEDGER_NAME];

	if (sscanf(name, "ledger-%4d%2d%2d", &tm.tm_year, &tm.tm_mon, &tm.tm_mday) != 3)
		return false;
	tm.tm_year -= 1900;
	tm.tm_mon--;
	*ret_day = (uint32_t)(timegm(&tm) / 86400);
	ledger_name(*ret_day, again);
	return strcmp(name, again) == 0;
}
