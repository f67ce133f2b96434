/* libclamav. What it cannot look at as a whole (its limits, its errors) is an error, never clean. */
#include <clamav.h>
#include <stdio.h>
#include "scanner/engine.h"

static struct cl_engine *engine;
static struct cl_scan_options options;

static enum status load(const char *signatures, unsigned max_seconds)
{
	unsigned n = 0;
	int r = cl_init(CL_INIT_DEFAULT);

	if (r != CL_SUCCESS || !(engine = cl_engine_new()))
		return trail(ST_IO, "libclamav: %s", cl_strerror(r));
	cl_engine_set_num(engine, CL_ENGINE_MAX_SCANTIME, (long long)max_seconds * 1000);
	cl_engine_set_num(engine, CL_ENGINE_MAX_SCANSIZE, 400ll << 20);
	cl_engine_set_num(engine, CL_ENGINE_MAX_FILESIZE, 200ll << 20);
	cl_engine_set_num(engine, CL_ENGINE_MAX_RECURSION, 16);
	cl_engine_set_num(engine, CL_ENGINE_MAX_FILES, 10000);
	r = cl_load(signatures, engine, &n, CL_DB_STDOPT);
	if (r != CL_SUCCESS)
		return trail(ST_INVALID, "signatures in %s: %s", signatures, cl_strerror(r));
	if (!n)
		return trail(ST_NOT_FOUND, "no signatures in %s", signatures);
	r = cl_engine_compile(engine);
	if (r != CL_SUCCESS)
		return trail(ST_INVALID, "signatures in %s: %s", signatures, cl_strerror(r));
	options.general = CL_SCAN_GENERAL_HEURISTICS;
	options.parse = ~0u;
	options.heuristic = CL_SCAN_HEURISTIC_EXCEEDS_MAX;
	return ST_OK;
}

static off_t read_piece(void *handle, void *buf, size_t count, off_t offset)
{
	return scan_read(handle, (uint64_t)offset, buf, count);
}

static enum scan_verdict scan(const struct scan_input *in, char *name)
{
	const char *virus = NULL;
	unsigned long scanned = 0;
	cl_fmap_t *map;
	int r;

	if (in->npieces == 1 && in->piece[0].partition == SCAN_PIECE_ARENA)
		map = cl_fmap_open_memory(in->arena + in->piece[0].off, in->piece[0].len);
	else
		map = cl_fmap_open_handle((void *)(uintptr_t)in, 0, (size_t)in->len, read_piece, 1);
	if (!map) {
		snprintf(name, SCAN_NAME_MAX, "cannot-map");
		return SCAN_ERROR;
	}
	r = cl_scanmap_callback(map, NULL, &virus, &scanned, engine, &options, NULL);
	cl_fmap_close(map);
	if (r == CL_VIRUS) {
		snprintf(name, SCAN_NAME_MAX, "%s", virus ? virus : "unknown");
		return virus && strncmp(virus, "Heuristics.Limits.Exceeded", 26) == 0 ? SCAN_ERROR : SCAN_INFECTED;
	}
	if (r == CL_CLEAN)
		return SCAN_CLEAN;
	snprintf(name, SCAN_NAME_MAX, "%s", cl_strerror(r));
	return SCAN_ERROR;
}

const struct scan_engine engine_clamav = { "clamav", load, scan };
