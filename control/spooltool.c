#include "control/spooltool.h"

#include <string.h>
#include "spool/store/check.h"
#include "spool/store/store.h"

static const char *type_name(uint16_t type)
{
	static const char *const name[] = { [REC_MESSAGE] = "message", [REC_OUTCOME] = "outcome", [REC_STATE] = "state", [REC_DONE] = "done",
		[REC_CHUNK] = "chunk", [REC_RUN] = "run" };

	return type < sizeof(name) / sizeof(name[0]) && name[type] ? name[type] : "unknown";
}

static void dump(void *ctx, uint32_t segment, uint64_t off, const struct batch_header *b, const struct record_header *r)
{
	FILE *out = ctx;
	char id[MSG_ID_TEXT + 1];

	msg_id_text(r->msg_id, id);
	fprintf(out, "segment %u at %llu, batch %llu (durable up to %llu): %s %s, %u bytes", segment, (unsigned long long)off,
		(unsigned long long)b->seq, (unsigned long long)b->durable, type_name(r->type), id, r->bytes);
	if (r->type == REC_OUTCOME && r->bytes >= sizeof(struct outcome_record)) {
		const struct outcome_record *o = (const struct outcome_record *)(const void *)r;

		fprintf(out, ", recipient %u state %u attempts %u%s reply %u", o->rcpt, o->state, o->attempts & ATTEMPTS_MAX,
			o->attempts & TOLD_OF_DELAY ? ", told of the delay," : "", o->code);
	}
	fputc('\n', out);
}

int spool_tool(const char *verb, const char *dir, FILE *out)
{
	struct check_sums sums;
	enum status st;

	if (strcmp(verb, "check") != 0 && strcmp(verb, "dump") != 0 && strcmp(verb, "stat") != 0) {
		fputs("weirctl: spool check|dump|stat DIR\n", stderr);
		return 2;
	}
	st = store_check(dir, strcmp(verb, "dump") == 0 ? dump : NULL, out, &sums);
	if (st != ST_OK) {
		fprintf(stderr, "weirctl: %s\n", trail_text());
		return 1;
	}
	fprintf(out, "%s: %u segments (%u in use, %u of them cold), %llu MiB, %llu batches, %llu records: %llu messages, %llu outcomes, %llu done; "
		"checkpoint %llu with %llu messages; %llu damaged\n", dir, sums.segments, sums.claimed, sums.cold, (unsigned long long)(sums.bytes >> 20), (unsigned long long)sums.batches,
		(unsigned long long)sums.records, (unsigned long long)sums.messages, (unsigned long long)sums.outcomes,
		(unsigned long long)sums.done, (unsigned long long)sums.checkpoint, (unsigned long long)sums.checkpoint_entries,
		(unsigned long long)sums.holes);
	return sums.holes ? 1 : 0;
}
