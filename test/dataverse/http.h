/*
 * http.h - the HTTP server under the simulator
 */
#ifndef SIM_HTTP_H
#define SIM_HTTP_H

#include <stdbool.h>

typedef struct SimHttpOptions
{
	int			port;			/* 0: any free one */
	int			threads;		/* event threads; 0: one thread per connection */
	char	   *tls_cert;		/* PEM text, or NULL */
	char	   *tls_key;
	const char *log_file;		/* one line per request, or NULL */
} SimHttpOptions;

/* Listen on 127.0.0.1 and serve; returns the port. Leaves when it cannot. */
extern int	sim_http_start(const SimHttpOptions *o);

/* Stop serving; requests in flight are finished. */
extern void sim_http_stop(void);

#endif							/* SIM_HTTP_H */
