/* One line of the password file, and the check of a password against it.
 *
 * A line is user:hash[:scram]. The hash is of crypt(3) (yescrypt, scrypt, bcrypt, sha512, sha256), or a SCRAM-SHA-256 verifier, or begins with "!" or "*"
 * (nobody logs in); scram is a verifier for clients that prefer SCRAM-SHA-256. Empty lines and lines that begin with "#" mean nothing.
 *
 * Used by the data plane and by weirctl. crypt(3) is libcrypt's: an exception to "no vendor library" in this folder. Thread: any. */
#ifndef WEIR_SPOOL_MAIL_PASSLINE_H
#define WEIR_SPOOL_MAIL_PASSLINE_H

#include "spool/mail/scram.h"

enum { PASSLINE_USER_MAX = 255, PASSLINE_HASH_MAX = 255, PASSLINE_PASSWORD_MAX = 255, PASSLINE_FILE_MAX = 64 << 20 };

struct passline {
	struct span user;
	struct span hash;            /* for crypt(3); empty when the password is checked by the verifier */
	bool has_scram, locked;
	struct scram_verifier scram;
};

/* Spans point into the line. ST_NOT_FOUND: nothing on it; ST_INVALID: the trail says what is wrong, without saying the hash. */
enum status passline_parse(struct span line, struct passline *ret);
/* Whether a name can be one: 1 to 255 octets of UTF-8 without control characters and colon. */
bool passline_user_ok(struct span user);
/* Whether the password fits: to the hash when there is one, else to the verifier. Slow by design (tens of milliseconds): never on an event loop.
 * hash is NUL-terminated, or "". */
bool passline_check(const char *hash, const struct scram_verifier *v, const char *password, size_t password_len);
/* Makes a line for this password with a fresh salt: a yescrypt hash and a verifier. ST_INVALID, ST_IO (no entropy). */
enum status passline_make(struct span user, const char *password, bool scram, struct out *o);

#endif
