#include "control/authtool.h"

#include <stdio.h>
#include <stdlib.h>
#include <termios.h>
#include <unistd.h>
#include "spool/base/file.h"
#include "spool/base/map.h"
#include "spool/mail/passline.h"

enum { LINE = 1024 };

/* One line of standard input; a terminal is asked for it, and does not show it. False: nothing came, or too much. */
static bool read_password(char *line, size_t cap)
{
	struct termios before, quiet;
	bool tty = tcgetattr(0, &before) == 0, ok;

	if (tty) {
		quiet = before;
		quiet.c_lflag &= ~(tcflag_t)ECHO;
		tcsetattr(0, TCSAFLUSH, &quiet);
		fputs("Password: ", stderr);
	}
	ok = fgets(line, (int)cap, stdin) != NULL;
	if (tty) {
		tcsetattr(0, TCSAFLUSH, &before);
		fputc('\n', stderr);
	}
	if (ok && !strchr(line, '\n') && !feof(stdin))
		return false;
	line[strcspn(line, "\r\n")] = '\0';
	return ok && *line;
}

static int hash(const char *user, bool scram)
{
	char password[LINE], line[LINE];
	struct out o = out_of(line, sizeof(line));
	enum status st;

	if (!read_password(password, sizeof(password))) {
		fputs("weirctl: the password is read from standard input, as one line\n", stderr);
		return 1;
	}
	st = passline_make(span_str(user), password, scram, &o);
	explicit_bzero(password, sizeof(password));
	if (st != ST_OK) {
		fprintf(stderr, "weirctl: %s\n", trail_text());
		return 1;
	}
	printf("%.*s\n", SPAN_FMT(out_span(&o)));
	return 0;
}

/* Every bad line, as the data plane would see them. */
static unsigned check_lines(struct span text, const char *file, unsigned *ret_users)
{
	struct map *seen;
	unsigned bad = 0;

	CHECK(map_new(&seen) == ST_OK);
	for (unsigned number = 1; text.n; number++) {
		struct passline l;
		enum status st = passline_parse(span_cut(&text, '\n'), &l);

		if (st == ST_OK && map_get(seen, l.user))
			st = trail(ST_EXISTS, "the user has a line already, which counts");
		if (st == ST_OK) {
			CHECK(map_set(seen, l.user, seen) == ST_OK);
			++*ret_users;
		} else if (st != ST_NOT_FOUND) {
			fprintf(stderr, "%s:%u: %s\n", file, number, trail_text());
			bad++;
		}
	}
	map_free(seen);
	return bad;
}

static int check(const char *file)
{
	unsigned users = 0, bad;
	char *text;
	size_t n;

	if (file_read(file, PASSLINE_FILE_MAX, NULL, &text, &n) != ST_OK) {
		fprintf(stderr, "weirctl: %s: %s\n", file, trail_text());
		return 1;
	}
	bad = check_lines(span_of(text, n), file, &users);
	free(text);
	printf("%s: %u users, %u bad lines\n", file, users, bad);
	return bad ? 1 : 0;
}

int auth_tool(int argc, char **argv)
{
	const char *verb = argc > 1 ? argv[1] : "";

	if (strcmp(verb, "hash") == 0 && argc == 3)
		return hash(argv[2], true);
	if (strcmp(verb, "hash") == 0 && argc == 4 && strcmp(argv[2], "--no-scram") == 0)
		return hash(argv[3], false);
	if (strcmp(verb, "check") == 0 && argc == 3)
		return check(argv[2]);
	return 2;
}
