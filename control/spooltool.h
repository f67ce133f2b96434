/* weirctl spool check, dump and stat. */
#ifndef WEIR_CONTROL_SPOOLTOOL_H
#define WEIR_CONTROL_SPOOLTOOL_H

#include <stdio.h>

/* Gives the exit code: 0 sound, 1 trouble, 2 usage. */
int spool_tool(const char *verb, const char *dir, FILE *out);

#endif
