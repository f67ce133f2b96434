/* How weir-control asks a dataplane worker: one request and a stream of rows on a Unix socket.
 *
 * The worker listens on <run>/command-<worker> (SOCK_SEQPACKET, mode 0600). A client sends one packet: the command's words as a row of
 * log.h ("cmd=queue.list limit=100 after=..."). The worker answers with packets, each one or more rows separated by "\n" (at most COMMAND_PACKET bytes), the last packet
 * being "end=ok", or "end=error msg=...". Then it closes.
 *
 * Commands of a worker:
 *   cmd=status                                     one row per thing: kind=worker|spool|scanner|redis|dns|listener ...
 *   cmd=queue.list limit=N after=ID state=S domain=D sender=A   rows: id= state= age_s= size= sender= rcpts= open= next_s= reason=
 *   cmd=queue.show id=ID                           one row of the message, one row per recipient: rcpt= state= attempts= next_s= reply=
 *   cmd=queue.index store=K pos=P                  of the worker's partition K (from 0): partition= ledger= (frames written), then id= open= state=, last next=P when
 *                                                  there are more
 *   cmd=queue.retry|hold|release|delete id=ID|all=1 [domain=D] [by=NAME]     rows: id= done=..., or an error
 *   cmd=rate.explain key=K                         rows: key= limit= period_s= source= line= rate= next_allowed_s= backend=redis|local
 *   cmd=route addr=A [client=IP]                   one row a decision: rule= what= from= to= more= file= line= config_line=
 *   cmd=verify.show|verify.forget what=A           what is known of an address or a domain: dataplane/verify.h
 *   cmd=verify.ask, then "\n" and addresses, a line each   rows: addr= result=yes|no|unknown|not-asked cached= why= reply=; takes as long as their destinations do
 *   cmd=explain client=IP from=A to=A helo=N user=U size=N, then "\n" and fields   what would become of a message: dataplane/rehearse.h
 *   cmd=dns type=mx|addr|txt name=N                result=found|nxdomain|nodata|null-mx|tempfail text=, then mx= preference=, addr= or txt= (an MX that
 *                                                  is the name itself, with preference 0: there is no MX record)
 *   cmd=notice to=A subject=S, then "\n" and text  a mail of the node's own
 *   cmd=log level=debug|info|warn|error
 */
#ifndef WEIR_SPOOL_STORE_COMMAND_H
#define WEIR_SPOOL_STORE_COMMAND_H

/* Addresses of one verify.ask. */
enum { VERIFY_ASK_MAX = 32 };

enum { COMMAND_PACKET = 32 * 1024, COMMAND_REQUEST = 16 * 1024 };

#endif
