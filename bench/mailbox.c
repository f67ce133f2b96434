#include "bench/mailbox.h"

#include <ctype.h>
#include <errno.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* A name that begins with a dot is a letter that is still coming; a stranger's slash leads nowhere. */
static bool mailbox_path(const char *dir, struct span addr, char *buf, size_t cap)
{
	int n = snprintf(buf, cap, "%s/", dir);

	if (n < 0 || (size_t)n + addr.n >= cap || !addr.n || addr.n > 255 || *addr.p == '.' || memchr(addr.p, '/', addr.n) || memchr(addr.p, '\0', addr.n))
		return false;
	for (size_t i = 0; i < addr.n; i++)
		buf[(size_t)n + i] = (char)tolower((unsigned char)addr.p[i]);
	buf[(size_t)n + addr.n] = '\0';
	return true;
}

bool mailbox_there(const char *dir, struct span addr)
{
	char path[4096];
	struct stat st;

	return mailbox_path(dir, addr, path, sizeof(path)) && stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

bool letter_begin(struct letter *l, const char *dir, struct span sender)
{
	static unsigned count;
	int n;

	letter_drop(l);
	n = snprintf(l->path, sizeof(l->path), "%s/.%lld-%d-%u", dir, (long long)time(NULL), (int)getpid(), ++count);
	l->f = n > 0 && (size_t)n < sizeof(l->path) ? fopen(l->path, "wx") : NULL;
	if (l->f)
		fprintf(l->f, "Return-Path: <%.*s>\r\n", SPAN_FMT(sender));
	return l->f != NULL;
}

void letter_add(struct letter *l, struct span piece)
{
	if (l->f)
		fwrite(piece.p, 1, piece.n, l->f); /* letter_end sees when that failed */
}

static bool put(const struct letter *l, const char *dir, struct span addr)
{
	const char *name = strrchr(l->path, '/') + 2; /* without the dot */
	char box[4096], path[8192];

	if (!mailbox_path(dir, addr, box, sizeof(box)))
		return false;
	snprintf(path, sizeof(path), "%s/%s", box, name);
	return link(l->path, path) == 0 || errno == EEXIST; /* the same mailbox, twice a recipient */
}

bool letter_end(struct letter *l, const char *dir, const struct envelope *env)
{
	bool good = l->f && fflush(l->f) == 0 && !ferror(l->f);

	for (uint32_t i = 0; good && i < env->nrcpt; i++)
		good = put(l, dir, env->rcpt[i].addr);
	letter_drop(l);
	return good;
}

void letter_drop(struct letter *l)
{
	if (!l->f)
		return;
	fclose(l->f);
	unlink(l->path);
	l->f = NULL;
}
