/* The configuration in the making: its bytes, and the order in which all is read, derived, checked and published. */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>
#include "control/model.h"
#include "spool/base/clock.h"
#include "spool/base/hash.h"

struct snap_settings *model_settings(struct model *m)
{
	return &((struct snap_header *)(void *)m->bytes)->settings;
}

static uint32_t append(struct model *m, const void *p, size_t n)
{
	size_t at = (m->n + 7) & ~(size_t)7;

	if (at + n + 1 > m->cap) {
		size_t cap = m->cap * 2 > at + n + 1 ? m->cap * 2 : (at + n + 1) * 2;

		m->bytes = realloc(m->bytes, cap);
		CHECK(m->bytes);
		memset(m->bytes + m->cap, 0, cap - m->cap);
		m->cap = cap;
	}
	if (n)
		memcpy(m->bytes + at, p, n);
	m->bytes[at + n] = '\0';
	m->n = at + n + 1;
	return (uint32_t)at;
}

struct snap_str model_add_str(struct model *m, struct span s)
{
	return (struct snap_str){ append(m, s.p, s.n), (uint32_t)s.n };
}

struct snap_list model_add_list(struct model *m, const void *rows, size_t n, size_t size)
{
	return (struct snap_list){ append(m, rows, n * size), (uint32_t)n };
}

const char *model_text(const struct model *m, struct snap_str s)
{
	return m->bytes + s.off;
}

void model_default(struct model *m, size_t off, const char *fmt, ...)
{
	struct snap_str *s = (struct snap_str *)(void *)((char *)model_settings(m) + off), made;
	char text[4096];
	va_list ap;

	if (s->len)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	made = model_add_str(m, span_str(text));
	memcpy((char *)model_settings(m) + off, &made, sizeof(made));
}

void model_seal(struct model *m, uint64_t generation)
{
	struct snap_header *h = (struct snap_header *)(void *)m->bytes;

	h->magic = SNAPSHOT_MAGIC;
	h->version = SNAPSHOT_VERSION;
	h->settings_size = sizeof(struct snap_settings);
	h->bytes = m->n;
	h->generation = generation;
	h->made_wall_ns = clock_wall_ns();
	h->checksum = XXH3_64bits(m->bytes + offsetof(struct snap_header, generation), m->n - offsetof(struct snap_header, generation));
}

bool model_read(struct model *m, const char *file, const char *run_dir, uint64_t generation, FILE *out)
{
	*m = (struct model){ .complain = out };
	append(m, &(struct snap_header){ 0 }, sizeof(struct snap_header));
	model_default(m, offsetof(struct snap_settings, run_dir), "%s", run_dir);
	model_read_defaults(m);
	m->file = file;
	if (file)
		model_read_file(m, file);
	mail_domains_together(m);
	policy_together(m);
	model_derive(m, run_dir);
	model_default(m, offsetof(struct snap_settings, config_file), "%s", file ? file : "");
	terms_together(m);
	tls_together(m);
	client_certs_together(m);
	client_logins_together(m);
	model_together(m);
	nets_together(m);
	registry_together(m);
	model_seal(m, generation);
	return m->errors == 0;
}

enum status model_publish(struct model *m, const char *run_dir)
{
	char path[4096], temp[4096];
	int fd;
	bool ok;

	snprintf(path, sizeof(path), "%s/snapshot", run_dir);
	snprintf(temp, sizeof(temp), "%s/snapshot.new", run_dir);
	fd = open(temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);
	if (fd < 0)
		return trail_errno(errno, "%s", temp);
	ok = write(fd, m->bytes, m->n) == (ssize_t)m->n && fsync(fd) == 0;
	close(fd);
	if (!ok || rename(temp, path) < 0)
		return trail_errno(errno, "%s", path);
	return ST_OK;
}
