/* Reads the configuration file with libyaml's document interface: it keeps the line of every value, which the checks of meaning
 * need for their messages (libcyaml, which stands on it, tells lines only for errors of its own). */
#include <errno.h>
#include <stdlib.h>
#include "control/model.h"

static bool is_group(const char *path)
{
	size_t n = strlen(path);

	for (size_t i = 0; i < schema_rows; i++)
		if (strncmp(schema[i].key, path, n) == 0 && schema[i].key[n] == '.')
			return true;
	return false;
}

static void walk(struct reader *r, const yaml_node_t *map, const char *prefix)
{
	for (yaml_node_pair_t *p = map->data.mapping.pairs.start; p < map->data.mapping.pairs.top; p++) {
		const yaml_node_t *kn = yaml_document_get_node(r->doc, p->key), *v = yaml_document_get_node(r->doc, p->value);
		const char *k = scalar(kn);
		const struct schema_row *row;
		char path[128];

		snprintf(path, sizeof(path), "%s%s%s", prefix, *prefix ? "." : "", k ? k : "?");
		row = schema_find(span_str(path));
		if (!row && v->type == YAML_MAPPING_NODE && is_group(path)) {
			walk(r, v, path);
			continue;
		}
		if (!row) {
			unknown_key(r->m, kn, path);
			continue;
		}
		if (r->seen[row - schema])
			complain(r->m, kn, "%s is there twice", path);
		r->seen[row - schema] = true;
		r->m->row_line[row - schema] = (uint32_t)kn->start_mark.line + 1;
		if (row->type == T_TABLE)
			set_table(r, row, v);
		else if (!scalar(v))
			complain(r->m, v, "%s has one value, not a list or a group", path);
		else
			set_scalar(r->m, v, row, scalar(v));
	}
}

static void read_stream(struct model *m, yaml_parser_t *p)
{
	yaml_document_t doc;
	bool seen[SCHEMA_ROWS_MAX] = { false };
	struct reader r = { .m = m, .doc = &doc, .seen = seen };
	yaml_node_t *root;

	CHECK(schema_rows <= SCHEMA_ROWS_MAX);
	if (!yaml_parser_load(p, &doc)) {
		m->errors++;
		fprintf(m->complain, "%s:%zu: not YAML: %s\n", m->file ? m->file : "(default)", p->problem_mark.line + 1, p->problem ? p->problem : "?");
		return;
	}
	root = yaml_document_get_root_node(&doc);
	if (root && root->type == YAML_MAPPING_NODE)
		walk(&r, root, "");
	else if (root)
		complain(m, root, "the file is a list of KEY: VALUE");
	yaml_document_delete(&doc);
}

static void read_text(struct model *m, const char *text)
{
	yaml_parser_t p;

	CHECK(yaml_parser_initialize(&p));
	yaml_parser_set_input_string(&p, (const unsigned char *)text, strlen(text));
	read_stream(m, &p);
	yaml_parser_delete(&p);
}

void model_read_file(struct model *m, const char *file)
{
	FILE *f = fopen(file, "r");
	yaml_parser_t p;

	if (!f) {
		m->errors++;
		fprintf(m->complain, "%s: %s\n", file, strerror(errno));
		return;
	}
	CHECK(yaml_parser_initialize(&p));
	yaml_parser_set_input_file(&p, f);
	read_stream(m, &p);
	yaml_parser_delete(&p);
	fclose(f);
}

void model_read_defaults(struct model *m)
{
	for (size_t i = 0; i < schema_rows; i++) {
		char text[256];

		if (schema[i].type != T_TABLE) {
			set_scalar(m, NULL, &schema[i], schema[i].def);
			continue;
		}
		if (strchr(schema[i].key, '.'))
			snprintf(text, sizeof(text), "%.*s: {%s: %s}", (int)strcspn(schema[i].key, "."), schema[i].key,
				strchr(schema[i].key, '.') + 1, schema[i].def);
		else
			snprintf(text, sizeof(text), "%s: %s", schema[i].key, schema[i].def);
		read_text(m, text);
	}
	memset(m->row_line, 0, sizeof(m->row_line)); /* no file has these lines */
}
