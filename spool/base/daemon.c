#include "spool/base/daemon.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <stddef.h>
#include <sys/resource.h>
#include <unistd.h>

void daemon_signals(void (*on_stop)(int))
{
	struct sigaction sa = { .sa_handler = on_stop };

	sigaction(SIGTERM, &sa, NULL);
	sigaction(SIGINT, &sa, NULL);
	signal(SIGPIPE, SIG_IGN);
}

void daemon_raise_files(void)
{
	struct rlimit r;

	if (getrlimit(RLIMIT_NOFILE, &r) == 0) {
		r.rlim_cur = r.rlim_max;
		setrlimit(RLIMIT_NOFILE, &r);
	}
	/* registered buffers count as locked memory; only root may raise that */
	setrlimit(RLIMIT_MEMLOCK, &(struct rlimit){ RLIM_INFINITY, RLIM_INFINITY });
}

enum status daemon_drop(const char *user)
{
	const struct passwd *pw;

	if (!user || !*user || geteuid() != 0)
		return ST_OK;
	pw = getpwnam(user);
	if (!pw)
		return trail(ST_NOT_FOUND, "no such user: %s", user);
	if (initgroups(user, pw->pw_gid) < 0 || setgid(pw->pw_gid) < 0 || setuid(pw->pw_uid) < 0)
		return trail_errno(errno, "becoming user %s", user);
	return ST_OK;
}
