/* The rate measure of rate.h as a Redis script: atomic on the server.
 *
 * KEYS[1] the key; ARGV: now in seconds, weight, period, limit, leaky (1 or 0). Gives the rate after the event, and whether it is over. The nodes' clocks decide, not the server's, so that
 * tests are exact; a clock that is behind the stored time counts as the smallest interval. The key lives for ten periods after its last event: then its rate is below a ten-thousandth. */
#ifndef WEIR_DATAPLANE_LOOKUP_RATE_LUA_H
#define WEIR_DATAPLANE_LOOKUP_RATE_LUA_H

static const char rate_lua[] =
	"local now, c, p, m, leaky = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5] == '1'\n"
	"local s = redis.call('HMGET', KEYS[1], 't', 'r')\n"
	"local r, t = c, now\n"
	"if s[1] and s[2] then\n"
	"  t = tonumber(s[1])\n"
	"  local x = math.max(now - t, 1e-6) / p\n"
	"  local f = x < 1e-4 and 1 - x / 2 + x * x / 6 or (1 - math.exp(-x)) / x\n"
	"  r = f * c + (1 - x * f) * tonumber(s[2])\n"
	"  t = math.max(now, t)\n"
	"end\n"
	"local over = m > 0 and r >= m\n"
	"if c < 0 then r = math.max(r, 0) end\n"
	"if (c > 0 and not (leaky and over)) or (c < 0 and s[1]) then\n"
	"  redis.call('HSET', KEYS[1], 't', string.format('%.6f', t), 'r', string.format('%.17g', r))\n"
	"  redis.call('EXPIRE', KEYS[1], math.ceil(p * 10))\n"
	"end\n"
	"return {string.format('%.17g', r), over and 1 or 0}\n";

#endif
