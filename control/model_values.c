/* Single values of the configuration: from text to a member of the settings, within the range of the schema. */
#include <ctype.h>
#include <stdlib.h>
#include "control/model.h"

static bool parse_unit(const char *text, const char *const *unit, const double *factor, size_t n, double *ret)
{
	char *end;
	double v = strtod(text, &end);

	if (end == text || v < 0 || !isdigit((unsigned char)text[0]))
		return false;
	for (size_t i = 0; i < n; i++)
		if (strcasecmp(end, unit[i]) == 0) {
			*ret = v * factor[i];
			return *ret < 1.8e19;
		}
	return false;
}

bool parse_size(const char *text, uint64_t *ret)
{
	static const char *const unit[] = { "", "K", "M", "G", "T" };
	static const double factor[] = { 1, 1024, 1048576, 1073741824, 1099511627776.0 };
	double v;

	if (!parse_unit(text, unit, factor, 5, &v))
		return false;
	*ret = (uint64_t)v;
	return true;
}

bool parse_duration(const char *text, uint64_t *ret)
{
	static const char *const unit[] = { "ms", "s", "m", "h", "d" };
	static const double factor[] = { 1e6, 1e9, 60e9, 3600e9, 86400e9 };
	double v;

	if (!parse_unit(text, unit, factor, 5, &v))
		return false;
	*ret = (uint64_t)v;
	return true;
}

bool parse_rate(const char *text, double *ret)
{
	char *end;

	if (strcasecmp(text, "none") == 0) {
		*ret = 0;
		return true;
	}
	*ret = strtod(text, &end);
	return end != text && !*end && *ret > 0 && *ret < 1e12;
}

int find_word(const char *const *words, const char *text)
{
	for (int i = 0; words[i]; i++)
		if (strcasecmp(words[i], text) == 0)
			return i;
	return -1;
}

void list_words(const char *const *words, struct out *o)
{
	for (int i = 0; words[i]; i++) {
		if (i)
			out_str(o, words[i + 1] ? ", " : " or ");
		out_str(o, words[i]);
	}
	out_char(o, '\0');
}

static void set_number(struct model *m, const yaml_node_t *at, const struct schema_row *r, uint64_t v, const char *text)
{
	char lo[32] = "", hi[32] = "";
	char *to = (char *)model_settings(m) + r->off;

	if (v < r->min || (r->max && v > r->max)) {
		if (r->type == T_SIZE || r->type == T_U32) {
			snprintf(lo, sizeof(lo), "%llu", (unsigned long long)r->min);
			snprintf(hi, sizeof(hi), "%llu", (unsigned long long)r->max);
		} else {
			snprintf(lo, sizeof(lo), "%gs", (double)r->min / 1e9);
			snprintf(hi, sizeof(hi), "%gs", (double)r->max / 1e9);
		}
		if (!(v == 0 && strcmp(r->def, "0") == 0)) {
			complain(m, at, "%s: %s is out of range; at least %s%s%s", r->key, text, lo, r->max ? ", at most " : "", r->max ? hi : "");
			return;
		}
	}
	if (r->type == T_U32)
		memcpy(to, &(uint32_t){ (uint32_t)v }, 4);
	else
		memcpy(to, &v, 8);
}

/* Sets a scalar from its text. */
void set_scalar(struct model *m, const yaml_node_t *at, const struct schema_row *r, const char *text)
{
	char *to = (char *)model_settings(m) + r->off;
	char buf[200];
	struct out o = out_of(buf, sizeof(buf));
	uint64_t v = 0;
	double d;
	int w;

	switch (r->type) {
	case T_STRING: {
		struct snap_str s = model_add_str(m, span_str(text));

		memcpy((char *)model_settings(m) + r->off, &s, sizeof(s));
		break;
	}
	case T_U32:
		if (!span_u64(span_str(text), UINT32_MAX, &v))
			complain(m, at, "%s: \"%s\" is not a number", r->key, text);
		else
			set_number(m, at, r, v, text);
		break;
	case T_SIZE:
		if (!parse_size(text, &v))
			complain(m, at, "%s: \"%s\" is not a size; write for example 512K, 100M or 8G", r->key, text);
		else
			set_number(m, at, r, v, text);
		break;
	case T_DURATION:
		if (!parse_duration(text, &v))
			complain(m, at, "%s: \"%s\" is not a duration; write for example 500ms, 30s, 5m, 4h or 5d", r->key, text);
		else
			set_number(m, at, r, v, text);
		break;
	case T_RATE:
		if (!parse_rate(text, &d))
			complain(m, at, "%s: \"%s\" is not a rate; write a number of messages, or none", r->key, text);
		else
			memcpy(to, &d, sizeof(d));
		break;
	case T_ENUM:
		w = find_word(r->words, text);
		list_words(r->words, &o);
		if (w < 0)
			complain(m, at, "%s: \"%s\" is not possible; write %s", r->key, text, buf);
		else if (r->off == offsetof(struct snap_settings, engine)) {
			struct snap_str s = model_add_str(m, span_str(r->words[w]));

			memcpy((char *)model_settings(m) + r->off, &s, sizeof(s));
		} else
			memcpy(to, &(uint32_t){ (uint32_t)w }, 4);
		break;
	case T_BOOL:
		w = find_word((const char *const[]){ "no", "yes", "false", "true", NULL }, text);
		if (w < 0)
			complain(m, at, "%s: \"%s\" is not possible; write yes or no", r->key, text);
		else
			memcpy(to, &(uint32_t){ (uint32_t)w & 1 }, 4);
		break;
	case T_TABLE:
		break;
	}
}
