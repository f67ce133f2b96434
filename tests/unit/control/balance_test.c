/* The sums of the ledger, and every way in which a message can fail to balance. */
#include "tests/support/unit.h"

#include <stdio.h>
#include <string.h>
#include "control/balance.h"
#include "control/when.h"
#include "spool/base/clock.h"
#include "spool/store/store.h"

static struct balance *b;
static struct balance_sums sums;
static uint64_t last_id;
static char last_text[200];

static int begin(void **state)
{
	return balance_new(1000, 4600, &b) == ST_OK ? 0 : -1;
}

static int end(void **state)
{
	balance_free(b);
	return 0;
}

static void accept_at(uint64_t id, uint32_t nrcpt, uint64_t s)
{
	balance_row(b, &(struct ledger_row){ .type = LEDGER_ACCEPTED, .state = MSG_QUEUED, .id = id, .arrived_ns = s * NS_PER_S + 1, .nrcpt = nrcpt },
		false);
}

static struct ledger_row fate_of(uint64_t id, uint32_t rcpt, enum rcpt_state state)
{
	return (struct ledger_row){ .type = LEDGER_FATE, .state = (uint8_t)state, .id = id, .arrived_ns = 2000 * NS_PER_S, .rcpt = rcpt,
		.text = SPAN("deleted by eve") };
}

static void fate(uint64_t id, uint32_t rcpt, enum rcpt_state state)
{
	struct ledger_row row = fate_of(id, rcpt, state);

	balance_row(b, &row, false);
}

static void on_problem(void *ctx, uint64_t id, const char *text)
{
	last_id = id;
	snprintf(last_text, sizeof(last_text), "%s", text);
}

static uint64_t judge(void)
{
	balance_judge(b, &sums, on_problem, NULL);
	return sums.problems;
}

static void everything_adds_up(void **state)
{
	for (uint64_t id = 1; id <= 5000; id++)
		accept_at(id, 3, 1000 + id % 3600);
	for (uint64_t id = 1; id <= 5000; id++) {
		fate(id, 0, RCPT_DELIVERED);
		fate(id, 1, id % 10 ? RCPT_BOUNCED : RCPT_DELETED);
	}
	balance_ask(b);
	for (uint64_t id = 1; id <= 5000; id++)
		balance_queued(b, id, 1, id % 2);
	assert_int_equal(judge(), 0);
	assert_int_equal(sums.clients.recipients, 15000);
	assert_int_equal(sums.clients.delivered, 5000);
	assert_int_equal(sums.clients.bounced, 4500);
	assert_int_equal(sums.clients.deleted, 500);
	assert_int_equal(sums.clients.held, 2500);
	assert_int_equal(sums.clients.queued, 2500);
	assert_int_equal(sums.ndeleters, 1);
	assert_string_equal(sums.deleter[0].who, "eve");
	assert_int_equal(sums.deleter[0].n, 500);
}

static void another_hour_does_not_count(void **state)
{
	accept_at(1, 1, 999);
	accept_at(2, 1, 4600);
	balance_ask(b);
	assert_int_equal(judge(), 0);
	assert_int_equal(sums.clients.messages, 0);
}

static void no_outcome_and_not_queued(void **state)
{
	accept_at(7, 2, 2000);
	fate(7, 1, RCPT_DELIVERED);
	balance_ask(b);
	assert_int_equal(judge(), 1);
	assert_int_equal(last_id, 7);
	assert_non_null(strstr(last_text, "1 of its 2"));
	assert_int_equal(sums.clients.unexplained, 1);
}

static void two_outcomes(void **state)
{
	accept_at(8, 1, 2000);
	fate(8, 0, RCPT_DELIVERED);
	fate(8, 0, RCPT_BOUNCED);
	balance_ask(b);
	assert_int_equal(judge(), 1);
	assert_int_equal(last_id, 8);
}

static void outcome_of_nothing(void **state)
{
	fate(9, 0, RCPT_DELIVERED);
	balance_ask(b);
	assert_int_equal(judge(), 1);
	assert_int_equal(last_id, 9);
}

static void outcome_and_still_queued(void **state)
{
	accept_at(10, 1, 2000);
	fate(10, 0, RCPT_DELIVERED);
	balance_ask(b);
	balance_queued(b, 10, 1, false);
	assert_int_equal(judge(), 1);
}

/* What happens while the queue is asked is no problem. */
static void the_node_works_on(void **state)
{
	accept_at(11, 1, 2000);
	balance_ask(b);
	balance_queued(b, 11, 1, false);
	fate(11, 0, RCPT_DELIVERED); /* after the queue was asked */
	accept_at(12, 1, 2000);      /* not in the queue then */
	assert_int_equal(judge(), 0);
	assert_int_equal(sums.clients.messages, 1);
	assert_int_equal(sums.clients.delivered, 1);
	balance_ask(b);
	balance_queued(b, 12, 1, false);
	assert_int_equal(judge(), 0);
	assert_int_equal(sums.clients.messages, 2);
}

/* A repair may say again what was said; nobody else may. */
static void repeated_by_a_repair(void **state)
{
	struct ledger_row row = fate_of(13, 0, RCPT_BOUNCED);

	accept_at(13, 1, 2000);
	fate(13, 0, RCPT_BOUNCED);
	balance_row(b, &row, true);
	balance_ask(b);
	assert_int_equal(judge(), 0);
	row.state = RCPT_DELIVERED;
	balance_row(b, &row, true);
	assert_int_equal(judge(), 1);
}

static void all_of_a_damaged_message(void **state)
{
	accept_at(14, 3, 2000);
	fate(14, 1, RCPT_DELIVERED);
	fate(14, LEDGER_RCPT_ALL, RCPT_DELETED);
	balance_ask(b);
	assert_int_equal(judge(), 0);
	assert_int_equal(sums.clients.deleted, 2);
}

static void times(void **state)
{
	uint64_t t, now = clock_wall_ns();

	assert_true(when_parse("2026-11-21T08", &t));
	assert_string_equal(when_text(t), "2026-11-21T08:00:00Z");
	assert_true(when_parse("2026-11-21T08:30:15Z", &t));
	assert_string_equal(when_text(t), "2026-11-21T08:30:15Z");
	assert_true(when_parse("2h", &t));
	assert_true(now - t >= 7200 * NS_PER_S - NS_PER_S && now - t < 7203 * NS_PER_S);
	assert_false(when_parse("yesterday", &t));
	assert_false(when_parse("", &t));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(everything_adds_up, begin, end),
		cmocka_unit_test_setup_teardown(another_hour_does_not_count, begin, end),
		cmocka_unit_test_setup_teardown(no_outcome_and_not_queued, begin, end),
		cmocka_unit_test_setup_teardown(two_outcomes, begin, end),
		cmocka_unit_test_setup_teardown(outcome_of_nothing, begin, end),
		cmocka_unit_test_setup_teardown(outcome_and_still_queued, begin, end),
		cmocka_unit_test_setup_teardown(the_node_works_on, begin, end),
		cmocka_unit_test_setup_teardown(repeated_by_a_repair, begin, end),
		cmocka_unit_test_setup_teardown(all_of_a_damaged_message, begin, end),
		cmocka_unit_test(times),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
