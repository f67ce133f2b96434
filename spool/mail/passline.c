#include "spool/mail/passline.h"

#include <crypt.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>

enum { SALT_LEN = 16, SCRAM_ITERATIONS = 10000 };

/* The length of the UTF-8 character at the start; 0 when it is none, or a control character. */
static size_t utf8_char(struct span s)
{
	const unsigned char *p = (const unsigned char *)s.p;
	size_t n = p[0] < 0x80 ? 1 : p[0] >= 0xc2 && p[0] < 0xe0 ? 2 : p[0] >= 0xe0 && p[0] < 0xf0 ? 3 : p[0] >= 0xf0 && p[0] < 0xf5 ? 4 : 0;

	if (!n || n > s.n || p[0] < ' ' || p[0] == 0x7f)
		return 0;
	for (size_t i = 1; i < n; i++)
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	/* over-long forms, surrogates, C1 controls, beyond U+10FFFF */
	if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) || (p[0] == 0xc2 && p[1] < 0xa0) ||
		(p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f))
		return 0;
	return n;
}

bool passline_user_ok(struct span user)
{
	if (!user.n || user.n > PASSLINE_USER_MAX)
		return false;
	while (user.n) {
		size_t n = utf8_char(user);

		if (!n || user.p[0] == ':')
			return false;
		user = span_skip(user, n);
	}
	return true;
}

static enum status parse_hash(struct span hash, struct passline *l)
{
	char text[PASSLINE_HASH_MAX + 1];

	if (!hash.n)
		return trail(ST_INVALID, "there is no hash behind the user's name");
	if (hash.p[0] == '!' || hash.p[0] == '*') {
		l->locked = true;
		return ST_OK;
	}
	if (hash.p[0] == '{') {
		l->has_scram = true;
		return scram_parse(hash, &l->scram);
	}
	if (hash.n > PASSLINE_HASH_MAX)
		return trail(ST_INVALID, "the hash is longer than %d characters", PASSLINE_HASH_MAX);
	memcpy(text, hash.p, hash.n);
	text[hash.n] = '\0';
	/* a bare setting has no hash behind its salt; crypt_checksalt cannot tell */
	if (crypt_checksalt(text) != CRYPT_SALT_OK || hash.p[hash.n - 1] == '$' || hash.n < 40)
		return trail(ST_INVALID, "the hash is not one of crypt(3) that is safe (yescrypt $y$, scrypt $7$, bcrypt $2b$, sha512 $6$, sha256 $5$)");
	l->hash = hash;
	return ST_OK;
}

enum status passline_parse(struct span line, struct passline *ret)
{
	struct span rest, hash;
	enum status st;

	if (line.n && line.p[line.n - 1] == '\r')
		line.n--;
	line = rest = span_trim(line);
	*ret = (struct passline){ 0 };
	if (!line.n || line.p[0] == '#')
		return ST_NOT_FOUND;
	ret->user = span_cut(&rest, ':');
	if (!rest.p)
		return trail(ST_INVALID, "there is no \":\"; a line is user:hash or user:hash:verifier");
	if (!passline_user_ok(ret->user))
		return trail(ST_INVALID, "the user's name is not 1 to %d octets of UTF-8 without control characters", PASSLINE_USER_MAX);
	hash = span_cut(&rest, ':');
	st = parse_hash(hash, ret);
	if (st != ST_OK || !rest.p)
		return st;
	if (memchr(rest.p, ':', rest.n))
		return trail(ST_INVALID, "there are more than three fields");
	if (ret->has_scram)
		return trail(ST_INVALID, "there are two verifiers");
	ret->has_scram = true;
	return scram_parse(rest, &ret->scram);
}

static bool crypt_check(const char *hash, const char *password)
{
	void *data = NULL;
	int size = 0;
	const char *got = crypt_ra(password, hash, &data, &size);
	size_t n = strlen(hash);
	bool ok = got && got[0] != '*' && strlen(got) == n && scram_equal(got, hash, n);

	if (data)
		explicit_bzero(data, (size_t)size);
	free(data);
	return ok;
}

bool passline_check(const char *hash, const struct scram_verifier *v, const char *password, size_t password_len)
{
	struct scram_verifier got = *v;

	if (*hash)
		return crypt_check(hash, password);
	scram_derive(span_of(password, password_len), &got);
	return scram_equal(got.stored_key, v->stored_key, SCRAM_KEY);
}

enum status passline_make(struct span user, const char *password, bool scram, struct out *o)
{
	struct scram_verifier v = { .iterations = SCRAM_ITERATIONS, .salt_len = SALT_LEN };
	char setting[CRYPT_GENSALT_OUTPUT_SIZE];
	void *data = NULL;
	int size = 0;
	const char *hash;
	enum status st = ST_OK;

	if (!passline_user_ok(user))
		return trail(ST_INVALID, "the user's name must be 1 to %d octets of UTF-8 without colon and control characters", PASSLINE_USER_MAX);
	if (!*password || strlen(password) > PASSLINE_PASSWORD_MAX)
		return trail(ST_INVALID, "a password has 1 to %d octets", PASSLINE_PASSWORD_MAX);
	if (!crypt_gensalt_rn("$y$", 0, NULL, 0, setting, sizeof(setting)) || getrandom(v.salt, v.salt_len, 0) != (ssize_t)v.salt_len)
		return trail_errno(errno, "making a salt");
	hash = crypt_ra(password, setting, &data, &size);
	if (hash && hash[0] != '*') {
		out_add(o, user);
		out_char(o, ':');
		out_str(o, hash);
	} else {
		st = trail_errno(errno, "crypt");
	}
	free(data);
	if (st == ST_OK && scram) {
		scram_derive(span_str(password), &v);
		out_char(o, ':');
		scram_write(&v, o);
	}
	return st;
}
