/* What a scanner needs to know of a body: pages of struct scan_piece in the arena. */
#include <stdlib.h>
#include "spool/store/internal.h"
#include "spool/store/scan.h"

/* A scanner reads what is in the log alone: those segments are not reused meanwhile. */
static void scan_reads(struct msg *m, int change)
{
	struct store *s = m->pub.store;

	if (!m->npieces) {
		if (change > 0)
			m->scan_segment = msg_entry(m)->segment;
		s->seg[m->scan_segment].reads += (uint32_t)change;
	}
	for (uint32_t i = 0; i < m->npieces; i++)
		if (!m->piece[i]->ext.cap)
			s->seg[m->piece[i]->segment].reads += (uint32_t)change;
}

static struct scan_piece piece_at(const struct msg *m, uint32_t i)
{
	const struct store *s = m->pub.store;
	const struct piece *p;

	if (!m->npieces)
		return (struct scan_piece){ .off = msg_entry(m)->off + (uint64_t)msg_entry(m)->head, .len = (uint32_t)m->pub.body_len,
			.partition = s->cfg.partition, .segment = msg_entry(m)->segment };
	p = m->piece[i];
	if (p->ext.cap)
		return (struct scan_piece){ .off = p->ext.off, .len = p->len, .partition = SCAN_PIECE_ARENA };
	return (struct scan_piece){ .off = p->off, .len = p->len, .partition = s->cfg.partition, .segment = p->segment };
}

void scan_list_free(struct msg *m)
{
	for (uint32_t i = 0; i < m->nscan_pages; i++)
		extent_release(m->pub.store->arena, m->scan_page[i]);
	free(m->scan_page);
	m->scan_page = NULL;
	m->nscan_pages = 0;
}

static enum status pages_alloc(struct msg *m, uint32_t n)
{
	m->scan_page = calloc(n, sizeof(*m->scan_page));
	if (!m->scan_page)
		return ST_NOMEM;
	for (; m->nscan_pages < n; m->nscan_pages++)
		if (page_alloc(m->pub.store->arena, &m->scan_page[m->nscan_pages]) != ST_OK) {
			scan_list_free(m);
			return trail(ST_FULL, "no room for a scan list");
		}
	return ST_OK;
}

enum status store_scan_begin(struct store_msg *pub, uint64_t *ret_list_off, uint32_t *ret_pieces)
{
	struct msg *m = (struct msg *)pub;
	struct arena *a = pub->store->arena;
	uint32_t n = m->npieces ? m->npieces : 1;
	struct scan_page *page = NULL;
	enum status st;

	if (m->nscan_pages)
		return trail(ST_AGAIN, "a scanner still reads it");
	if (n > SCAN_PIECES_MAX)
		return trail(ST_TOO_BIG, "the message has too many pieces");
	st = pages_alloc(m, (n + SCAN_PAGE_PIECES - 1) / SCAN_PAGE_PIECES);
	if (st != ST_OK)
		return st;
	for (uint32_t i = 0; i < n; i++) {
		if (i % SCAN_PAGE_PIECES == 0) {
			uint64_t off = m->scan_page[i / SCAN_PAGE_PIECES].off;

			if (page)
				page->next_off = off;
			page = arena_at(a, off);
		}
		page->piece[i % SCAN_PAGE_PIECES] = piece_at(m, i);
	}
	page->next_off = 0;
	scan_reads(m, 1);
	m->pins++;
	*ret_list_off = m->scan_page[0].off;
	*ret_pieces = n;
	return ST_OK;
}

void store_scan_done(struct store_msg *pub)
{
	struct msg *m = (struct msg *)pub;

	if (!m->nscan_pages)
		return;
	scan_list_free(m);
	scan_reads(m, -1);
	m->pins--;
	msg_maybe_evict(m);
	msg_let_go(pub->store, m);
}
