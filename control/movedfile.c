#include "control/movedfile.h"

struct movedfile movedfile_of(struct span text)
{
	return (struct movedfile){ .rest = text };
}

/* "#" is an ordinary character of a local part but behind a blank and at the start. */
static struct span without_comment(struct span s)
{
	for (size_t i = 0; i < s.n; i++)
		if (s.p[i] == '#' && (i == 0 || s.p[i - 1] == ' ' || s.p[i - 1] == '\t'))
			return span_of(s.p, i);
	return s;
}

bool movedfile_next(struct movedfile *f)
{
	while (f->rest.n) {
		struct span line = span_trim(without_comment(span_cut(&f->rest, '\n')));

		f->line++;
		while (line.n && line.p[line.n - 1] == '\r')
			line = span_trim(span_of(line.p, line.n - 1));
		if (!line.n)
			continue;
		f->key = out_of(f->bytes, sizeof(f->bytes));
		f->wrong = NULL;
		if (line.p[0] != '"' && memchr(line.p, '@', line.n))
			f->wrong = "write the local part alone, without its domain";
		else if (!address_local_ok(line, ADDRESS_UTF8) || address_local_key(line, &f->key) != ST_OK)
			f->wrong = "this is not a local part; write one a line";
		return true;
	}
	return false;
}
