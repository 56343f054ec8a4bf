/*
 * ceiling.c - how fast libcurl posts ready-made bodies from memory
 *
 * The ceiling of every sender on this machine: nothing is read, encoded or
 * recorded. One thread, one multi handle, as many requests in flight as told.
 *
 *   ceiling URL TOKEN CONNECTIONS REQUESTS BODY_FILE [CA_FILE]
 *
 * Prints the seconds it took. Any answer but 200 ends it with an error.
 */
#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static char *body;
static long body_len;
static struct curl_slist *headers;

static void
die(const char *why)
{
	fprintf(stderr, "ceiling: %s\n", why);
	exit(1);
}

static double
now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double) ts.tv_sec + (double) ts.tv_nsec / 1e9;
}

static void
read_body(const char *path)
{
	FILE	   *f = fopen(path, "rb");

	if (f == NULL || fseek(f, 0, SEEK_END) != 0 || (body_len = ftell(f)) <= 0)
		die("cannot read the body");
	rewind(f);
	body = malloc((size_t) body_len);
	if (body == NULL || fread(body, 1, (size_t) body_len, f) != (size_t) body_len)
		die("cannot read the body");
	fclose(f);
}

/* Answers are read and dropped. */
static size_t
drop(char *data, size_t size, size_t n, void *arg)
{
	(void) data;
	(void) arg;
	return size * n;
}

static CURL *
make_easy(const char *url, const char *ca_file)
{
	CURL	   *easy = curl_easy_init();

	if (easy == NULL)
		die("out of memory");
	curl_easy_setopt(easy, CURLOPT_URL, url);
	curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers);
	curl_easy_setopt(easy, CURLOPT_POST, 1L);
	curl_easy_setopt(easy, CURLOPT_POSTFIELDS, body);
	curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE, body_len);
	curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, drop);
	curl_easy_setopt(easy, CURLOPT_UPLOAD_BUFFERSIZE, 512L * 1024);
	if (ca_file != NULL)
		curl_easy_setopt(easy, CURLOPT_CAINFO, ca_file);
	return easy;
}

/* Take what has finished; returns how many. */
static int
take_finished(CURLM *multi, long *left)
{
	CURLMsg    *msg;
	int			n = 0,
				in_queue;

	while ((msg = curl_multi_info_read(multi, &in_queue)) != NULL)
	{
		long		status = 0;
		CURL	   *easy = msg->easy_handle;

		if (msg->msg != CURLMSG_DONE)
			continue;
		if (msg->data.result != CURLE_OK)
			die(curl_easy_strerror(msg->data.result));
		curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
		if (status != 200)
			die("an answer was not 200");
		curl_multi_remove_handle(multi, easy);
		n++;
		if (*left > 0)
		{
			(*left)--;
			curl_multi_add_handle(multi, easy);
		}
	}
	return n;
}

int
main(int argc, char **argv)
{
	CURLM	   *multi;
	long		connections,
				requests,
				left,
				done = 0;
	char		token[1024];
	double		began;

	if (argc < 6)
		die("usage: ceiling URL TOKEN CONNECTIONS REQUESTS BODY_FILE [CA_FILE]");
	connections = atol(argv[3]);
	left = requests = atol(argv[4]);
	read_body(argv[5]);
	curl_global_init(CURL_GLOBAL_DEFAULT);
	snprintf(token, sizeof token, "Authorization: Bearer %s", argv[2]);
	headers = curl_slist_append(curl_slist_append(curl_slist_append(curl_slist_append(curl_slist_append(NULL, "Expect:"), token),
																	"Content-Type: application/json"), "OData-Version: 4.0"), "OData-MaxVersion: 4.0");
	multi = curl_multi_init();
	curl_multi_setopt(multi, CURLMOPT_MAXCONNECTS, connections);
	began = now();
	for (long i = 0; i < connections && left > 0; i++, left--)
		curl_multi_add_handle(multi, make_easy(argv[1], argc > 6 ? argv[6] : NULL));
	while (done < requests)
	{
		int			running;

		if (curl_multi_perform(multi, &running) != CURLM_OK)
			die("curl_multi_perform failed");
		done += take_finished(multi, &left);
		if (done < requests)
			curl_multi_poll(multi, NULL, 0, 1000, NULL);
	}
	printf("%.6f\n", now() - began);
	return 0;
}
