/* The rules of the relay as one table (rules.def): stable name, row id, modes, and what operators are told about each.
 *
 * Workers take decisions by it, the configuration is checked against it, weirctl explain-code prints it. How a rule decides is in dataplane/policy/, one file a rule.
 *
 * Thread: any; constant. */
#ifndef WEIR_SPOOL_MAIL_RULES_H
#define WEIR_SPOOL_MAIL_RULES_H

#include "spool/base/span.h"

/* The class of a client (A5). */
enum snap_class { CLASS_MX, CLASS_ROBUST, CLASS_FRAGILE, CLASS_SUBMISSION, CLASS_NCLASS };

/* What is done about what a rule finds (D2). */
enum policy_mode {
	POLICY_OFF,     /* the rule is not asked */
	POLICY_MONITOR, /* counted and logged; no reply changes */
	POLICY_TAG,     /* accepted, with a field X-Weir-Policy on top */
	POLICY_HOLD,    /* accepted, and held */
	POLICY_DEFER,   /* 4xx */
	POLICY_REJECT,  /* 5xx; 4xx while it is undecided */
	POLICY_NMODE,
};

enum rule_guarantee { GUARANTEE_REFUSE, GUARANTEE_HOLD, GUARANTEE_SEND };

enum rule {
#define RULE(id, ...) RULE_##id,
#include "spool/mail/rules.def"
#undef RULE
	RULE_NRULE,
};

struct rule_row {
	const char *name, *row;
	uint8_t allowed;            /* bits 1 << enum policy_mode */
	uint8_t mode[CLASS_NCLASS]; /* the default */
	uint8_t guarantee;          /* enum rule_guarantee */
	const char *codes;          /* "5.1.8 4.4.3" */
	const char *title, *cause, *cure;
};
extern const struct rule_row rule_row[RULE_NRULE];
/* B4: the most, as enum policy_mode, that is done about mail for postmaster alone; POLICY_OFF: the same as about other mail. */
extern const uint8_t rule_postmaster[RULE_NRULE];
extern const char *const policy_mode_words[]; /* by enum policy_mode; ends with NULL */
extern const char *const class_words[];       /* by enum snap_class; ends with NULL */

/* By its name, in any case; RULE_NRULE: there is none. */
enum rule rule_find(struct span name);
/* Whether text is the rule's name, its row, or one of its enhanced codes (of either class, 4 or 5, when they differ in that alone). */
bool rule_is_meant(enum rule r, struct span text);

#endif
