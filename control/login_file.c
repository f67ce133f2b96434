#include "control/login_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include "spool/base/file.h"

enum { FILE_MAX = 4096 };

static struct span without_line_end(struct span s)
{
	if (s.n && s.p[s.n - 1] == '\n')
		s.n--;
	if (s.n && s.p[s.n - 1] == '\r')
		s.n--;
	return s;
}

static bool is_one_line(struct span s)
{
	return s.n && s.n <= LOGIN_PASSWORD_MAX && !memchr(s.p, '\0', s.n) && !memchr(s.p, '\n', s.n) && !memchr(s.p, '\r', s.n);
}

enum status login_file_read(const char *path, char buf[LOGIN_PASSWORD_MAX], struct span *ret)
{
	struct stat s;
	struct span text;
	char *bytes;
	size_t n;
	enum status st = file_read(path, FILE_MAX, &s, &bytes, &n);

	*ret = SPAN_NONE;
	if (st != ST_OK) {
		char why[256];

		snprintf(why, sizeof(why), "%s", trail_text());
		return trail(st, "%s cannot be read: %s", path, why);
	}
	text = without_line_end(span_of(bytes, n));
	if (s.st_mode & S_IRWXO) {
		st = trail(ST_DENIED, "%s: others may read it (mode %03o); chmod o= %s", path, (unsigned)s.st_mode & 0777, path);
	} else if (!is_one_line(text)) {
		st = trail(ST_INVALID, "%s must have one line, the password, of at most %d octets", path, LOGIN_PASSWORD_MAX);
	} else {
		memcpy(buf, text.p, text.n);
		*ret = span_of(buf, text.n);
	}
	explicit_bzero(bytes, n);
	free(bytes);
	return st;
}
