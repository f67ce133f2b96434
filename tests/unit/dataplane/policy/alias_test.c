#include "tests/support/tables_fixture.h"

#include "dataplane/policy/alias.h"

static const char config[] = "postmaster: boss@a.example\n"
			     "mail_domains:\n"
			     "  - {domain: a.example, aliases: a}\n"
			     "  - {domain: b.example, aliases: b, forwarding: users, unlisted: deliver}\n"
			     "  - {domain: long.example, long_form_of: b.example}\n"
			     "  - {domain: old.example, retired: \"closed in 1999\"}\n"
			     "  - {domain: fixed.example, forward: list@a.example}\n"
			     "  - {domain: self.example, forward: me@self.example}\n"
			     "  - {domain: prov.example, to: \"smtp:mx.prov.example:25\"}\n"
			     "  - {domain: back.example, backup_mx: yes}\n";

static struct fixture x;
static struct policy_facts facts;
static struct pool pool;
static struct alias_expansion e;

static int begin(void **state)
{
	char *text;
	size_t len;
	FILE *f = open_memstream(&text, &len);

	fixture_begin(&x);
	fprintf(f, "list: Bob@b.example, carol@long.example, bob@B.example, ext@Other.Example\nboss: bob@b.example\nself: self@a.example, Other@x.example\n"
		   "ring: ring2@a.example\nring2: ring@a.example\nhalf: gone@a.example, ring@a.example, ok@x.example\nempty: gone@a.example, x@old.example\n"
		   "diamond: d1@a.example,d2@a.example\nd1: end@x.example\nd2: d1@a.example\n\"Quo ted\": q@x.example\n");
	for (int i = 0; i < 20; i++)
		fprintf(f, "deep%d: deep%d@a.example\n", i, i + 1);
	fprintf(f, "deep20: bottom@x.example\nhuge: ");
	for (int i = 0; i <= ALIAS_RCPTS_MAX; i++)
		fprintf(f, "%sh%d@x.example", i ? "," : "", i);
	fclose(f);
	fixture_file(&x, "a", text);
	free(text);
	fixture_file(&x, "b", "carol: c1@b.example\n");
	fixture_file(&x, "users", "c1: far@away.example\n");
	if (!fixture_compile(&x, config))
		fail_msg("%s", x.errors);
	facts = (struct policy_facts){ .snap = &x.snap, .tables = &x.tables };
	pool_init(&pool, 8 << 20);
	return 0;
}

static int end(void **state)
{
	pool_reset(&pool);
	fixture_end(&x);
	return 0;
}

/* The recipients of addr, joined by blanks; or "550 5.1.1". */
static const char *expanded(const char *addr)
{
	static char text[4096];
	struct out o = out_of(text, sizeof(text) - 1);
	struct address a;

	pool_reset(&pool);
	assert_ok(address_parse(span_str(addr), ADDRESS_ALLOW_BARE, &a));
	policy_alias(&facts, &a, true, &pool, &e);
	if (!e.d.accept) {
		out_fmt(&o, "%u %u.%u.%u", e.d.reply.code, e.d.reply.enhanced[0], e.d.reply.enhanced[1], e.d.reply.enhanced[2]);
	} else if (!e.in_tables) {
		out_str(&o, "itself");
	}
	for (uint32_t i = 0; e.d.accept && i < e.nrcpt; i++) {
		if (i)
			out_char(&o, ' ');
		out_add(&o, e.rcpt[i]);
	}
	text[o.n] = '\0';
	return text;
}

static void expansion(void **state)
{
	assert_string_equal(expanded("x@elsewhere.example"), "itself");
	assert_string_equal(expanded("x@[192.0.2.1]"), "itself");
	/* bob and Bob of a domain that is delivered elsewhere may be two people; what an alias says of carol is one way */
	assert_string_equal(expanded("LIST@A.example"), "Bob@b.example far@away.example bob@b.example ext@other.example");
	assert_string_equal(expanded("self@a.example"), "self@a.example Other@x.example");
	assert_string_equal(expanded("diamond@a.example"), "end@x.example");
	assert_string_equal(expanded("\"quo ted\"@a.example"), "q@x.example");
	assert_string_equal(expanded("\"list\"@a.example"), "Bob@b.example far@away.example bob@b.example ext@other.example");
	assert_string_equal(expanded("New@long.example"), "New@b.example");
	assert_string_equal(expanded("anyone@fixed.example"), "Bob@b.example far@away.example bob@b.example ext@other.example");
	assert_string_equal(expanded("x@self.example"), "me@self.example");
	assert_string_equal(expanded("X@prov.example"), "X@prov.example");
	assert_string_equal(expanded("x@back.example"), "x@back.example");
	assert_string_equal(expanded("deep5@a.example"), "bottom@x.example");
}

static void refusals(void **state)
{
	assert_string_equal(expanded("gone@a.example"), "550 5.1.1");
	assert_int_equal(e.d.rule, RULE_RCPT_UNKNOWN);
	assert_string_equal(expanded("x@old.example"), "550 5.1.6");
	assert_span(reply_text(&e.d.reply), "closed in 1999");
	assert_string_equal(expanded("ring@a.example"), "550 5.4.6");
	assert_string_equal(expanded("deep0@a.example"), "550 5.4.6");
	assert_string_equal(expanded("empty@a.example"), "550 5.1.6");
	assert_string_equal(expanded("huge@a.example"), "550 5.2.4");
	assert_string_equal(expanded("half@a.example"), "ok@x.example");
	assert_int_equal(e.ndropped, 1);
	assert_span(e.dropped, "gone@a.example");
}

static void postmaster(void **state)
{
	assert_string_equal(expanded("PostMaster"), "bob@b.example");
	assert_string_equal(expanded("postmaster@a.example"), "bob@b.example");
	assert_string_equal(expanded("POSTMASTER@old.example"), "bob@b.example");
	assert_string_equal(expanded("postmaster@long.example"), "postmaster@b.example");
	assert_string_equal(expanded("postmaster@back.example"), "postmaster@back.example");
}

static void without_memory_the_answer_is_temporary(void **state)
{
	struct address a;
	struct pool small;

	assert_ok(address_parse(SPAN("list@a.example"), 0, &a));
	for (size_t ceiling = 0; ceiling < 2000; ceiling += 16) {
		pool_init(&small, ceiling);
		policy_alias(&facts, &a, true, &small, &e);
		assert_true(e.d.accept ? e.nrcpt == 4 : e.d.reply.code == 452);
		pool_reset(&small);
	}
}

static void domains_that_the_tables_ought_to_have(void **state)
{
	struct tables none = { 0 };
	struct policy_facts f = { .snap = &x.snap, .tables = &none };
	struct address a;

	assert_ok(address_parse(SPAN("list@a.example"), 0, &a));
	policy_alias(&f, &a, false, &pool, &e);
	assert_int_equal(e.d.reply.code, 451);
	assert_true(policy_relay(&f, &a).accept);
}

static void the_way_is_told(void **state)
{
	expanded("carol@long.example");
	assert_int_equal(e.nstep, 3);
	assert_string_equal(e.step[0].rule, "C7");
	assert_span(e.step[0].to, "carol@b.example");
	assert_string_equal(e.step[1].rule, "C6");
	assert_int_equal(e.step[1].alias->line, 1);
	assert_string_equal(e.step[2].rule, "C8");
	assert_span(e.step[2].to, "far@away.example");
	assert_int_equal(e.step[2].domain->line, 4);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(expansion),
		cmocka_unit_test(refusals),
		cmocka_unit_test(postmaster),
		cmocka_unit_test(without_memory_the_answer_is_temporary),
		cmocka_unit_test(domains_that_the_tables_ought_to_have),
		cmocka_unit_test(the_way_is_told),
	};

	return cmocka_run_group_tests(tests, begin, end);
}
