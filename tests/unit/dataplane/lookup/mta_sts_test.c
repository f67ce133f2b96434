/* Questions to weir-control: answers, rubbish, silence, a link that breaks, nobody there. DNS is a dead port: there is never a TXT record, so that only a policy that
 * weir-control still has is asked for. */
#include "tests/support/unit.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "dataplane/lookup/mta_sts.h"
#include "spool/base/clock.h"

#define POLICY "version: STSv1\nmode: enforce\nmx: mx.cam.example\nmax_age: 1000\n"

static struct uring ring;
static struct dns *dns;
static struct sts *sts;
static char dir[64];
static int listener = -1, control = -1;

/* ---- weir-control's side ---- */

static void control_listen(void)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };

	snprintf(a.sun_path, sizeof(a.sun_path), "%s/mta-sts", dir);
	unlink(a.sun_path);
	listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0);
	assert_int_equal(bind(listener, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(listen(listener, 8), 0);
}

static void control_close(void)
{
	if (control >= 0)
		close(control);
	control = -1;
}

static void turn(void)
{
	uint64_t wait;

	(void)uring_wait(&ring, 2 * NS_PER_MS);
	dns_turn(dns, clock_mono_ns(), &wait);
	sts_turn(sts, clock_mono_ns(), &wait);
	if (control < 0)
		control = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
}

/* The next question, as text. */
static const char *question(void)
{
	static char buf[2048];

	for (int i = 0; i < 2000; i++) {
		ssize_t n;

		turn();
		n = control < 0 ? -1 : recv(control, buf, sizeof(buf) - 1, 0);
		if (n > 0) {
			buf[n] = '\0';
			return buf;
		}
	}
	return "";
}

static void say(const char *text)
{
	assert_true(send(control, text, strlen(text), MSG_NOSIGNAL) > 0);
}

/* ---- who asks ---- */

struct asked {
	int calls;
	enum sts_result result;
	enum sts_fault fault;
	uint32_t nmx;
	struct sts_query *query;
};

static void take(struct asked *k, struct sts_answer *a)
{
	k->calls++;
	k->result = a->result;
	k->fault = a->fault;
	k->nmx = a->policy ? a->policy->nmx : 0;
	sts_release(a);
}

static void on_answer(void *ctx, struct sts_answer *a)
{
	take(ctx, a);
}

static void get(const char *domain, uint64_t timeout_ms, struct asked *k)
{
	struct sts_ask ask = { .domain = span_str(domain), .port = 443, .timeout_ns = timeout_ms * NS_PER_MS };
	struct sts_answer *a;
	enum status st = sts_get(sts, &ask, on_answer, k, &a, &k->query);

	if (st == ST_OK)
		take(k, a);
	else
		assert_int_equal(st, ST_AGAIN);
}

static void wait_for(const struct asked *k)
{
	for (int i = 0; i < 2000 && !k->calls; i++)
		turn();
	assert_int_equal(k->calls, 1);
}

/* ---- tests ---- */

static void one_question_for_all_who_ask(void **state)
{
	struct asked a = { 0 }, b = { 0 }, gone = { 0 }, later = { 0 };

	get("one.example", 5000, &a);
	get("one.example", 5000, &b);
	get("one.example", 5000, &gone);
	sts_cancel(gone.query);
	assert_string_equal(question(), "domain=one.example id=\"\" address=\"\" port=443");
	say("domain=one.example result=policy left_s=1000\n" POLICY);
	wait_for(&a);
	assert_int_equal(b.calls, 1);
	assert_int_equal(gone.calls, 0);
	assert_int_equal(a.result, STS_POLICY);
	assert_int_equal(a.nmx, 1);
	get("one.example", 5000, &later);
	assert_int_equal(later.calls, 1); /* at once */
	assert_int_equal(later.result, STS_POLICY);
}

static void none_and_faults(void **state)
{
	struct asked a = { 0 }, b = { 0 };

	get("none.example", 5000, &a);
	question();
	say("domain=none.example result=none left_s=0");
	wait_for(&a);
	assert_int_equal(a.result, STS_NONE);
	assert_int_equal(a.fault, STS_FAULT_NONE);
	get("fault.example", 5000, &b);
	question();
	say("domain=fault.example result=none left_s=0 fault=webpki detail=\"no good\"");
	wait_for(&b);
	assert_int_equal(b.result, STS_NONE);
	assert_int_equal(b.fault, STS_FAULT_WEBPKI);
}

static void rubbish_is_passed_over(void **state)
{
	struct asked a = { 0 };

	get("rubbish.example", 5000, &a);
	question();
	say("\n\n\n");
	say("domain=nobody.example result=policy left_s=1\n" POLICY);
	say("domain=rubbish");
	say("what=");
	for (int i = 0; i < 20; i++)
		turn();
	assert_int_equal(a.calls, 0);
	say("domain=rubbish.example left_s=9999999999999\nversion: STSv7\n"); /* ours, but no policy */
	wait_for(&a);
	assert_int_equal(a.result, STS_NONE);
}

static void silence_ends_and_a_late_answer_counts(void **state)
{
	struct asked a = { 0 }, b = { 0 };

	get("late.example", 300, &a);
	question();
	wait_for(&a);
	assert_int_equal(a.result, STS_UNKNOWN);
	say("domain=late.example result=policy left_s=1000\n" POLICY);
	for (int i = 0; i < 20; i++)
		turn();
	get("late.example", 300, &b);
	assert_int_equal(b.calls, 1);
	assert_int_equal(b.result, STS_POLICY);
}

static void a_broken_link_is_made_anew(void **state)
{
	struct asked a = { 0 }, b = { 0 };

	get("broken.example", 5000, &a);
	question();
	control_close();
	wait_for(&a);
	assert_int_equal(a.result, STS_UNKNOWN);
	get("mended.example", 5000, &b);
	assert_string_equal(question(), "domain=mended.example id=\"\" address=\"\" port=443");
	say("domain=mended.example result=none left_s=0");
	wait_for(&b);
	assert_int_equal(b.result, STS_NONE);
}

static void nobody_there_is_unknown(void **state)
{
	struct asked a = { 0 }, b = { 0 };
	char path[128];

	snprintf(path, sizeof(path), "%s/mta-sts", dir);
	unlink(path);
	get("link.example", 5000, &a); /* makes the old link break, if it is still there */
	control_close();
	wait_for(&a);
	get("nobody.example", 5000, &b);
	wait_for(&b);
	assert_int_equal(b.result, STS_UNKNOWN);
	close(listener);
	control_listen();
}

static void ends_with_questions_open(void **state)
{
	struct asked a = { 0 };

	get("open.example", 5000, &a);
	question(); /* the tear-down frees the rest */
}

static int begin(void **state)
{
	struct dns_config cfg = { .servers = "127.0.0.1:9", .timeout_ns = NS_PER_S, .cache_max = 100 };

	snprintf(dir, sizeof(dir), "/tmp/weir-ask-XXXXXX");
	assert_non_null(mkdtemp(dir));
	control_listen();
	assert_ok(uring_init(&ring, 64));
	assert_ok(dns_new(&ring, &cfg, &dns));
	assert_ok(sts_new(&ring, dns, dir, &sts));
	return 0;
}

static int end(void **state)
{
	char path[128];

	dns_free(dns);
	uring_done(&ring);
	sts_free(sts);
	control_close();
	close(listener);
	snprintf(path, sizeof(path), "%s/mta-sts", dir);
	unlink(path);
	return rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(one_question_for_all_who_ask), cmocka_unit_test(none_and_faults),
		cmocka_unit_test(rubbish_is_passed_over), cmocka_unit_test(silence_ends_and_a_late_answer_counts),
		cmocka_unit_test(a_broken_link_is_made_anew), cmocka_unit_test(nobody_there_is_unknown), cmocka_unit_test(ends_with_questions_open) };

	return cmocka_run_group_tests(tests, begin, end);
}
