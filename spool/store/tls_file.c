#include "spool/store/tls_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include "spool/base/file.h"
#include "spool/base/hash.h"

#define MAGIC 0x31534c5452494557ull /* "WEIRTLS1" */

enum { HEAD = 16 };
static const size_t FILE_BYTES_MAX = 2ull * (TLS_CERTS_MAX + TLS_CLIENT_CERTS_MAX) * (TLS_PEM_MAX + 4) + TLS_LOGINS_MAX * 8192ull + 4096;

static void write_certs(const struct tls_pem *c, uint32_t n, struct out *o)
{
	out_le32(o, n);
	for (uint32_t i = 0; i < n; i++) {
		out_field(o, c[i].chain);
		out_field(o, c[i].key);
	}
}

/* Everything after the head: magic and checksum of the rest. */
static void write_rest(const struct tls_file *f, struct out *o)
{
	out_le32(o, f->nticket);
	for (uint32_t i = 0; i < f->nticket; i++) {
		out_add(o, span_of(f->ticket[i].name, 16));
		out_add(o, span_of(f->ticket[i].aes, 32));
		out_add(o, span_of(f->ticket[i].hmac, 32));
		out_le64(o, f->ticket[i].made_wall_ns);
	}
	write_certs(f->cert, f->ncert, o);
	write_certs(f->client, f->nclient, o);
	out_le32(o, f->nlogin);
	for (uint32_t i = 0; i < f->nlogin; i++) {
		out_field(o, f->login[i].user);
		out_field(o, f->login[i].file);
		out_field(o, f->login[i].password);
	}
}

static void take(struct in *i, uint8_t *to, size_t n)
{
	struct span s = in_bytes(i, n);

	if (s.n == n)
		memcpy(to, s.p, n);
}

static bool read_certs(struct in *i, struct tls_pem *c, uint32_t most, uint32_t *ret_n)
{
	*ret_n = in_le32(i);
	if (i->bad || *ret_n > most)
		return false;
	for (uint32_t k = 0; k < *ret_n; k++) {
		c[k].chain = in_field(i);
		c[k].key = in_field(i);
	}
	return !i->bad;
}

static bool read_logins(struct in *i, struct tls_file *f)
{
	f->nlogin = in_le32(i);
	if (i->bad || f->nlogin > TLS_LOGINS_MAX)
		return false;
	for (uint32_t k = 0; k < f->nlogin; k++) {
		f->login[k].user = in_field(i);
		f->login[k].file = in_field(i);
		f->login[k].password = in_field(i);
	}
	return !i->bad;
}

static bool read_rest(struct in *i, struct tls_file *f)
{
	f->nticket = in_le32(i);
	if (i->bad || f->nticket > TLS_TICKET_KEYS_MAX)
		return false;
	for (uint32_t k = 0; k < f->nticket; k++) {
		take(i, f->ticket[k].name, 16);
		take(i, f->ticket[k].aes, 32);
		take(i, f->ticket[k].hmac, 32);
		f->ticket[k].made_wall_ns = in_le64(i);
	}
	if (!read_certs(i, f->cert, TLS_CERTS_MAX, &f->ncert))
		return false;
	if (!i->rest.n)
		return true; /* of the version before clients had certificates */
	if (!read_certs(i, f->client, TLS_CLIENT_CERTS_MAX, &f->nclient))
		return false;
	if (!i->rest.n)
		return true; /* of the version before routes had logins */
	return read_logins(i, f) && !i->rest.n;
}

enum status tls_file_read(const char *run_dir, struct tls_file *ret)
{
	struct tls_file f = { 0 };
	char path[4096];
	struct in i;
	enum status st;
	uint64_t sum;

	snprintf(path, sizeof(path), "%s/tls", run_dir);
	if (access(path, F_OK) < 0 && errno == ENOENT)
		return trail(ST_NOT_FOUND, "%s does not exist", path);
	st = file_read(path, FILE_BYTES_MAX, NULL, &f.bytes, &f.n);
	if (st != ST_OK)
		return st;
	i = in_of(span_of(f.bytes, f.n));
	if (in_le64(&i) != MAGIC || (sum = in_le64(&i), i.bad) || sum != XXH3_64bits(i.rest.p, i.rest.n) || !read_rest(&i, &f)) {
		tls_file_free(&f);
		return trail(ST_CORRUPT, "%s is damaged, or of another version", path);
	}
	*ret = f;
	return ST_OK;
}

static enum status write_file(const char *run_dir, struct span bytes)
{
	char path[4096], temp[4096];
	bool ok;
	int fd;

	snprintf(path, sizeof(path), "%s/tls", run_dir);
	snprintf(temp, sizeof(temp), "%s/tls.new", run_dir);
	unlink(temp); /* whatever mode it has */
	fd = open(temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return trail_errno(errno, "%s", temp);
	ok = write(fd, bytes.p, bytes.n) == (ssize_t)bytes.n && fsync(fd) == 0;
	close(fd);
	if (!ok || rename(temp, path) < 0)
		return trail_errno(errno, "%s", path);
	return ST_OK;
}

enum status tls_file_write(const char *run_dir, const struct tls_file *f)
{
	size_t cap = 4096 + sizeof(f->ticket);
	struct out o, head;
	enum status st;
	char *buf;

	for (uint32_t i = 0; i < f->ncert; i++)
		cap += f->cert[i].chain.n + f->cert[i].key.n + 8;
	for (uint32_t i = 0; i < f->nclient; i++)
		cap += f->client[i].chain.n + f->client[i].key.n + 8;
	for (uint32_t i = 0; i < f->nlogin; i++)
		cap += f->login[i].user.n + f->login[i].file.n + f->login[i].password.n + 12;
	buf = calloc(1, cap);
	if (!buf)
		return ST_NOMEM;
	o = out_of(buf + HEAD, cap - HEAD);
	write_rest(f, &o);
	CHECK(!o.over);
	head = out_of(buf, HEAD);
	out_le64(&head, MAGIC);
	out_le64(&head, XXH3_64bits(o.p, o.n));
	st = write_file(run_dir, span_of(buf, HEAD + o.n));
	explicit_bzero(buf, cap);
	free(buf);
	return st;
}

static bool same_certs(const struct tls_pem *a, uint32_t na, const struct tls_pem *b, uint32_t nb)
{
	bool same = na == nb;

	for (uint32_t i = 0; i < na && same; i++)
		same = span_eq(a[i].chain, b[i].chain) && span_eq(a[i].key, b[i].key);
	return same;
}

static bool same_logins(const struct tls_file *a, const struct tls_file *b)
{
	bool same = a->nlogin == b->nlogin;

	for (uint32_t i = 0; i < a->nlogin && same; i++)
		same = span_eq(a->login[i].user, b->login[i].user) && span_eq(a->login[i].file, b->login[i].file) && span_eq(a->login[i].password, b->login[i].password);
	return same;
}

bool tls_file_same(const struct tls_file *a, const struct tls_file *b)
{
	return a->nticket == b->nticket && same_certs(a->cert, a->ncert, b->cert, b->ncert) && same_certs(a->client, a->nclient, b->client, b->nclient) && same_logins(a, b) &&
		memcmp(a->ticket, b->ticket, a->nticket * sizeof(a->ticket[0])) == 0;
}

void tls_file_free(struct tls_file *f)
{
	if (f->bytes)
		explicit_bzero(f->bytes, f->n);
	free(f->bytes);
	explicit_bzero(f, sizeof(*f));
}
