/* Dovecot's authentication protocol against a scripted server on a Unix socket. */
#include "tests/support/unit.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "dataplane/lookup/dovecot.h"
#include "spool/base/clock.h"

static struct uring u;
static struct dovecot *d;
static int listening, peer;
static char dir[64], path[100];

static struct {
	unsigned n[4];
	char challenge[64], user[300];
} got;

static void on_answer(void *ctx, const struct dovecot_answer *a)
{
	got.n[a->result]++;
	snprintf(got.challenge, sizeof(got.challenge), "%.*s", SPAN_FMT(a->challenge));
	snprintf(got.user, sizeof(got.user), "%.*s", SPAN_FMT(a->user));
}

static void turn(unsigned times)
{
	uint64_t wait;

	for (unsigned i = 0; i < times; i++) {
		dovecot_turn(d, clock_mono_ns(), &wait);
		assert_ok(uring_wait(&u, 2000000));
	}
}

/* What the client said so far. */
static const char *heard(void)
{
	static char text[8192];
	ssize_t n;

	turn(2);
	n = recv(peer, text, sizeof(text) - 1, MSG_DONTWAIT);
	text[n > 0 ? n : 0] = '\0';
	return text;
}

static void server_says(const char *text)
{
	assert_int_equal(send(peer, text, strlen(text), MSG_NOSIGNAL), (ssize_t)strlen(text));
	turn(5);
}

static int begin(void **state)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };

	memset(&got, 0, sizeof(got));
	strcpy(dir, "/tmp/weir-dovecot-XXXXXX");
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/socket", dir);
	snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
	listening = socket(AF_UNIX, SOCK_STREAM, 0);
	assert_int_equal(bind(listening, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(listen(listening, 5), 0);
	assert_ok(uring_init(&u, 64));
	assert_ok(dovecot_new(&u, path, 200 * NS_PER_MS, &d));
	peer = accept(listening, NULL, NULL);
	return 0;
}

static int end(void **state)
{
	dovecot_free(d);
	uring_done(&u);
	close(peer);
	close(listening);
	unlink(path);
	rmdir(dir);
	return 0;
}

static const char hello[] = "VERSION\t1\t2\nMECH\tPLAIN\tplaintext\nMECH\tSCRAM-SHA-256\tmutual-auth\nSPID\t1\nCUID\t1\nCOOKIE\tabc\nDONE\n";

static struct dovecot_request *ask(const char *mech)
{
	struct dovecot_facts f = { .mech = mech, .initial = SPAN("\0bob\0secret"), .client_port = 1234, .local_port = 587 };
	struct dovecot_request *r = NULL;

	f.client_ip[10] = f.client_ip[11] = f.local_ip[10] = f.local_ip[11] = 0xff;
	f.client_ip[12] = f.local_ip[12] = 127;
	return dovecot_auth(d, &f, on_answer, NULL, &r) == ST_OK ? r : NULL;
}

static void greeting_and_mechanisms(void **state)
{
	char expect[64];

	snprintf(expect, sizeof(expect), "VERSION\t1\t2\nCPID\t%d\n", (int)getpid());
	assert_string_equal(heard(), expect);
	assert_null(ask("PLAIN"));
	assert_false(dovecot_is_known(d));
	for (const char *p = hello; *p; p++)
		server_says((char[]){ *p, '\0' }); /* byte by byte */
	assert_true(dovecot_is_up(d) && dovecot_is_known(d));
	assert_true(dovecot_has(d, "PLAIN") && dovecot_has(d, "SCRAM-SHA-256") && !dovecot_has(d, "LOGIN"));
}

static void answers_find_their_questions(void **state)
{
	struct dovecot_request *r;

	server_says(hello);
	heard();
	assert_non_null(ask("PLAIN"));
	assert_string_equal(heard(), "AUTH\t1\tPLAIN\tservice=smtp\tnologin\tlip=127.0.0.0\trip=127.0.0.0\tlport=587\trport=1234\tsecured\tresp=AGJvYgBzZWNyZXQ=\n");
	assert_non_null(ask("PLAIN"));
	assert_non_null(ask("PLAIN"));
	assert_non_null(ask("PLAIN"));
	server_says("FAIL\t2\tuser=bob\tcode=temp_fail\nOK\t1\tuser=b\001tb\tx=y\nFAIL\t3\tuser=bob\nOK\t99\tuser=other\nOK\t4\n");
	assert_int_equal(got.n[DOVECOT_OK], 1);
	assert_int_equal(got.n[DOVECOT_NO], 1);
	assert_int_equal(got.n[DOVECOT_TROUBLE], 2); /* temporary, and a success of nobody */
	r = ask("SCRAM-SHA-256");
	heard();
	server_says("CONT\t5\taGVsbG8=\n");
	assert_int_equal(got.n[DOVECOT_CHALLENGE], 1);
	assert_string_equal(got.challenge, "hello");
	assert_ok(dovecot_continue(r, SPAN("world")));
	assert_string_equal(heard(), "CONT\t5\td29ybGQ=\n");
	server_says("CONT\t5\t\n");
	assert_int_equal(got.n[DOVECOT_CHALLENGE], 2);
	assert_ok(dovecot_continue(r, SPAN("")));
	server_says("OK\t5\tuser=bob\n");
	assert_int_equal(got.n[DOVECOT_OK], 2);
	assert_string_equal(got.user, "bob");
}

static void exchanges_that_come_to_no_end(void **state)
{
	struct dovecot_request *r;

	server_says(hello);
	heard();
	r = ask("PLAIN");
	dovecot_cancel(r);
	assert_non_null(strstr(heard(), "CANCEL\t1\n"));
	server_says("OK\t1\tuser=bob\n"); /* too late */
	assert_int_equal(got.n[DOVECOT_OK], 0);
	r = ask("SCRAM-SHA-256");
	server_says("CONT\t2\taGVsbG8=\nFAIL\t2\n"); /* gives up while the client is asked */
	assert_int_equal(got.n[DOVECOT_NO], 0);
	assert_int_equal(dovecot_continue(r, SPAN("world")), ST_CLOSED);
	r = ask("SCRAM-SHA-256");
	server_says("CONT\t3\taGVsbG8=\nFAIL\t3\n");
	dovecot_cancel(r);
	assert_non_null(ask("PLAIN"));
	for (int i = 0; i < 200 && !got.n[DOVECOT_TROUBLE]; i++)
		turn(2); /* no answer in time */
	assert_int_equal(got.n[DOVECOT_TROUBLE], 1);
	assert_non_null(strstr(heard(), "CANCEL\t4\n"));
	ask("PLAIN");
	ask("PLAIN");
	ask("SCRAM-SHA-256"); /* stays until the end of the test */
}

static void a_lost_connection_is_trouble_and_comes_back(void **state)
{
	struct dovecot_request *r;

	server_says(hello);
	assert_non_null(ask("PLAIN"));
	assert_non_null(ask("PLAIN"));
	r = ask("SCRAM-SHA-256");
	server_says("CONT\t3\taGVsbG8=\n");
	close(peer);
	turn(5);
	assert_int_equal(got.n[DOVECOT_TROUBLE], 2);
	assert_false(dovecot_is_up(d));
	assert_true(dovecot_has(d, "PLAIN"));
	assert_null(ask("PLAIN"));
	assert_int_equal(dovecot_continue(r, SPAN("world")), ST_CLOSED);
	for (int i = 0; i < 2000; i++) {
		struct pollfd p = { .fd = listening, .events = POLLIN };

		turn(1);
		if (poll(&p, 1, 0) == 1)
			break;
	}
	peer = accept(listening, NULL, NULL);
	server_says("VERSION\t2\t0\n"); /* what we do not speak */
	assert_int_equal(recv(peer, (char[1024]){ 0 }, 1024, MSG_DONTWAIT) > 0, 1);
	assert_int_equal(recv(peer, (char[1]){ 0 }, 1, MSG_DONTWAIT), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test_setup_teardown(greeting_and_mechanisms, begin, end),
		cmocka_unit_test_setup_teardown(answers_find_their_questions, begin, end),
		cmocka_unit_test_setup_teardown(exchanges_that_come_to_no_end, begin, end),
		cmocka_unit_test_setup_teardown(a_lost_connection_is_trouble_and_comes_back, begin, end) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
