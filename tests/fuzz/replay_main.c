/* Replays a corpus: every file of the directories given, through one fuzz target. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static int replay(const char *path)
{
	FILE *f = fopen(path, "rb");
	uint8_t *buf = malloc(1 << 20);
	size_t n;

	if (!f || !buf) {
		perror(path);
		exit(1);
	}
	n = fread(buf, 1, 1 << 20, f);
	fclose(f);
	buf = realloc(buf, n ? n : 1); /* so that a byte too far is noticed */
	LLVMFuzzerTestOneInput(buf, n);
	free(buf);
	return 1;
}

int main(int argc, char **argv)
{
	int files = 0;

	for (int i = 1; i < argc; i++) {
		DIR *d = opendir(argv[i]);
		struct dirent *e;
		char path[4096];

		while (d && (e = readdir(d))) {
			snprintf(path, sizeof(path), "%s/%s", argv[i], e->d_name);
			files += e->d_name[0] != '.' ? replay(path) : 0;
		}
		if (d)
			closedir(d);
	}
	printf("%d files\n", files);
	return files ? 0 : 1;
}
