/* What the alias file's reader takes is valid and reads the same when it is written out again; the text cut at a line end gives the same entries; errors have a text. */
#include <stdio.h>
#include <stdlib.h>
#include "control/aliasfile.h"
#include "spool/base/status.h"
#include "spool/mail/address.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

/* Writes every entry as "line name:address,address"; gives how many lines were wrong. */
static unsigned write_entries(struct aliasfile *f, unsigned first_line, bool with_line, FILE *out)
{
	enum aliasfile_event ev;
	unsigned wrong = 0;

	while ((ev = aliasfile_next(f)) != ALIASFILE_END) {
		struct span rest = f->addresses, one;
		struct address a;
		const char *sep = ":";

		CHECK(f->line > 0);
		if (ev == ALIASFILE_WRONG) {
			CHECK(*f->wrong);
			wrong++;
			continue;
		}
		CHECK(address_local_ok(f->name, ADDRESS_UTF8));
		if (with_line)
			fprintf(out, "%u ", first_line + f->line);
		fwrite(f->name.p, 1, f->name.n, out);
		while (aliasfile_address(&rest, &one)) {
			CHECK(address_parse(one, ADDRESS_UTF8, &a) == ST_OK && a.domain.n);
			fprintf(out, "%s", sep);
			fwrite(one.p, 1, one.n, out);
			sep = ",";
		}
		CHECK(*sep == ','); /* at least one */
		fputc('\n', out);
	}
	return wrong;
}

static char *entries(struct span text, size_t cut, bool with_line, size_t *ret_n, unsigned *ret_wrong)
{
	char *p = NULL;
	FILE *out = open_memstream(&p, ret_n);
	struct aliasfile whole = aliasfile_of(span_of(text.p, cut)), rest = { .rest = span_skip(text, cut) };

	CHECK(out);
	*ret_wrong = write_entries(&whole, 0, with_line, out);
	*ret_wrong += write_entries(&rest, whole.line, with_line, out);
	fclose(out);
	return p;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct span text = span_of(data, n);
	size_t n1, n2, n3;
	unsigned wrong, w2, w3;
	char *all = entries(text, n, true, &n1, &wrong), *plain = entries(text, n, false, &n2, &w2), *again;

	for (size_t i = 0; i < n && i < 2000; i++)
		if (data[i] == '\n') {
			again = entries(text, i + 1, true, &n3, &w3);
			CHECK(w3 == wrong && span_eq(span_of(all, n1), span_of(again, n3)));
			free(again);
		}
	again = entries(span_of(plain, n2), n2, false, &n3, &w3);
	CHECK(w3 == 0 && span_eq(span_of(plain, n2), span_of(again, n3)));
	free(again);
	free(plain);
	free(all);
	return 0;
}
