/*
 * full_disk.c - a disk that is full where a test says so
 *
 * Preloaded into the server. While the file named by DV_FULL_DISK exists, files
 * below the directory named in it cannot grow: ENOSPC, as from a full volume.
 * What is there can be overwritten.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static int
is_full(int fd, off_t end)
{
	const char *marker = getenv("DV_FULL_DISK");
	char		link[64];
	char		path[4096];
	char		dir[4096];
	struct stat st;
	ssize_t		n;
	int			in;

	if (marker == NULL || (in = open(marker, O_RDONLY)) < 0)
		return 0;
	n = read(in, dir, sizeof(dir) - 1);
	close(in);
	if (n <= 0)
		return 0;
	dir[n] = '\0';
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, path, sizeof(path) - 1);
	if (n <= 0 || fstat(fd, &st) != 0)
		return 0;
	path[n] = '\0';
	return strncmp(path, dir, strlen(dir)) == 0 && end > st.st_size;
}

#define REAL(name)	((__typeof__(&name)) dlsym(RTLD_NEXT, #name))

ssize_t
pwrite(int fd, const void *buf, size_t n, off_t offset)
{
	if (is_full(fd, offset + (off_t) n))
	{
		errno = ENOSPC;
		return -1;
	}
	return REAL(pwrite) (fd, buf, n, offset);
}

ssize_t
pwrite64(int fd, const void *buf, size_t n, off64_t offset)
{
	if (is_full(fd, offset + (off_t) n))
	{
		errno = ENOSPC;
		return -1;
	}
	return REAL(pwrite64) (fd, buf, n, offset);
}

ssize_t
pwritev(int fd, const struct iovec *iov, int count, off_t offset)
{
	off_t		end = offset;
	int			i;

	for (i = 0; i < count; i++)
		end += (off_t) iov[i].iov_len;
	if (is_full(fd, end))
	{
		errno = ENOSPC;
		return -1;
	}
	return REAL(pwritev) (fd, iov, count, offset);
}

int
posix_fallocate(int fd, off_t offset, off_t len)
{
	return is_full(fd, offset + len) ? ENOSPC : REAL(posix_fallocate) (fd, offset, len);
}
