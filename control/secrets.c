#include "control/secrets.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "spool/base/file.h"
#include "spool/base/span.h"

enum { FILE_MAX = 1 << 20 };

/* "DOMAIN USER:PASSWORD"; the password may have spaces and colons in it. */
static bool read_line(struct span line, struct span *ret_domain, struct span *ret_user, struct span *ret_password)
{
	*ret_domain = span_cut(&line, ' ');
	line = span_trim(line);
	*ret_user = span_cut(&line, ':');
	*ret_password = line;
	return ret_domain->n && ret_user->n && line.n && ret_user->n < sizeof(((struct secret *)NULL)->user) &&
		line.n < sizeof(((struct secret *)NULL)->password);
}

static enum status search(struct span text, const char *path, const char *domain, struct secret *ret)
{
	enum status st = trail(ST_NOT_FOUND, "%s has no line for %s", path, domain);
	struct span name, user, password;

	for (unsigned n = 1; text.n; n++) {
		struct span line = span_cut(&text, '\n');

		if (line.n && line.p[line.n - 1] == '\r')
			line.n--;
		line = span_trim(line);
		if (!line.n || line.p[0] == '#')
			continue;
		if (!read_line(line, &name, &user, &password))
			return trail(ST_INVALID, "%s:%u: write DOMAIN USER:PASSWORD", path, n);
		if (!span_eq_nocase(name, span_str(domain)) && !(st != ST_OK && span_eq(name, SPAN("*"))))
			continue;
		snprintf(ret->user, sizeof(ret->user), "%.*s", SPAN_FMT(user));
		snprintf(ret->password, sizeof(ret->password), "%.*s", SPAN_FMT(password));
		st = ST_OK;
		if (!span_eq(name, SPAN("*")))
			break;
	}
	return st;
}

enum status secrets_find(const char *path, const char *domain, struct secret *ret)
{
	struct stat s;
	char *bytes;
	size_t n;
	enum status st = file_read(path, FILE_MAX, &s, &bytes, &n);

	*ret = (struct secret){ 0 };
	if (st != ST_OK) {
		char why[256];

		snprintf(why, sizeof(why), "%s", trail_text());
		return trail(st, "%s: %s", path, why);
	}
	if (s.st_mode & (S_IRWXG | S_IRWXO))
		st = trail(ST_DENIED, "%s: others may read it (mode %03o); it must be 0600", path, (unsigned)s.st_mode & 0777);
	else
		st = search(span_of(bytes, n), path, domain, ret);
	explicit_bzero(bytes, n);
	free(bytes);
	return st;
}

void secrets_wipe(struct secret *s)
{
	explicit_bzero(s, sizeof(*s));
}
