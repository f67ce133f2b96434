#include "spool/base/base64.h"

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

void base64_encode(struct span s, struct out *o)
{
	const unsigned char *p = (const unsigned char *)s.p;

	for (size_t i = 0; i < s.n; i += 3) {
		size_t left = s.n - i;
		uint32_t v = (uint32_t)p[i] << 16 | (left > 1 ? (uint32_t)p[i + 1] << 8 : 0) | (left > 2 ? p[i + 2] : 0u);

		out_char(o, alphabet[v >> 18]);
		out_char(o, alphabet[v >> 12 & 63]);
		out_char(o, left > 1 ? alphabet[v >> 6 & 63] : '=');
		out_char(o, left > 2 ? alphabet[v & 63] : '=');
	}
}

/* 0 to 63, or 64 for what is not in the alphabet. */
static uint32_t digit(char c)
{
	if (c >= 'A' && c <= 'Z')
		return (uint32_t)(c - 'A');
	if (c >= 'a' && c <= 'z')
		return (uint32_t)(c - 'a') + 26;
	if (c >= '0' && c <= '9')
		return (uint32_t)(c - '0') + 52;
	return c == '+' ? 62 : c == '/' ? 63 : 64;
}

enum status base64_decode(struct span s, struct out *o)
{
	if (s.n % 4)
		return ST_INVALID;
	for (size_t i = 0; i < s.n; i += 4) {
		const char *c = s.p + i;
		unsigned pad = i + 4 < s.n || c[3] != '=' ? 0 : c[2] == '=' ? 2 : 1;
		uint32_t d[4], v = 0;

		for (unsigned k = 0; k < 4; k++) {
			d[k] = k + pad < 4 ? digit(c[k]) : 0;
			if (d[k] > 63)
				return ST_INVALID;
			v = v << 6 | d[k];
		}
		/* bits that no byte takes must be zero, else one text would have many spellings */
		if ((pad == 1 && (v & 0xff)) || (pad == 2 && (v & 0xffff)))
			return ST_INVALID;
		out_char(o, (char)(v >> 16));
		if (pad < 2)
			out_char(o, (char)(v >> 8));
		if (pad < 1)
			out_char(o, (char)v);
	}
	return ST_OK;
}
