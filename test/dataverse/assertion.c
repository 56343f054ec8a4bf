/*
 * assertion.c - checks client assertions (JWT, PS256) against a certificate
 *
 * As strict as the documents allow: PS256 and x5t#S256 only, every claim there,
 * no allowance for clocks that differ.
 */
#include "assertion.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>

#include "json.h"

/* "exp" may be ten minutes after "nbf", the documents say. */
#define LONGEST_S 600

/* What is in a JWT, as far as it matters; NULL or 0 where it is missing. */
typedef struct Jwt
{
	size_t		signed_len;		/* header and claims with the point between */
	unsigned char *signature;
	size_t		signature_len;
	const char *alg,
			   *typ,
			   *digest,
			   *aud,
			   *iss,
			   *sub,
			   *jti;
	int64_t		nbf,
				iat,
				exp;
} Jwt;

void *
sim_certificate_load(const char *file)
{
	FILE	   *f = fopen(file, "r");
	X509	   *certificate = f != NULL ? PEM_read_X509(f, NULL, NULL, NULL) : NULL;

	if (f != NULL)
		fclose(f);
	return certificate;
}

/* Decode base64url without padding; NULL on any other character. A NUL follows. */
static unsigned char *
decode(SimArena *arena, const char *s, size_t len, size_t *out_len)
{
	unsigned char *out = sim_arena_alloc(arena, len + 1);
	unsigned	bits = 0;
	int			have = 0;
	size_t		n = 0;

	for (size_t i = 0; i < len; i++)
	{
		int			v = s[i] == '-' ? 62 : s[i] == '_' ? 63 : s[i] == '+' || s[i] == '/' ? -1 : sim_base64_value(s[i]);

		if (v < 0)
			return NULL;
		bits = bits << 6 | (unsigned) v;
		have += 6;
		if (have >= 8)
		{
			have -= 8;
			out[n++] = (unsigned char) (bits >> have);
		}
	}
	out[n] = '\0';
	*out_len = n;
	return out;
}

static void
take_member(Jwt *jwt, SimArena *arena, SimStr name, const SimScalar *value)
{
	const struct
	{
		const char *name;
		const char **text;
		int64_t    *number;
	}			members[] = {
		{"alg", &jwt->alg, NULL}, {"typ", &jwt->typ, NULL}, {"x5t#S256", &jwt->digest, NULL},
		{"aud", &jwt->aud, NULL}, {"iss", &jwt->iss, NULL}, {"sub", &jwt->sub, NULL}, {"jti", &jwt->jti, NULL},
		{"nbf", NULL, &jwt->nbf}, {"iat", NULL, &jwt->iat}, {"exp", NULL, &jwt->exp}
	};

	for (size_t i = 0; i < sizeof members / sizeof members[0]; i++)
	{
		if (!sim_str_is(name, members[i].name))
			continue;
		if (members[i].text != NULL && value->kind == SIM_JSON_STRING)
			*members[i].text = sim_arena_strndup(arena, value->text.s, value->text.len);
		if (members[i].number != NULL && value->kind == SIM_JSON_NUMBER && value->integral)
			*members[i].number = strtoll(sim_arena_strndup(arena, value->text.s, value->text.len), NULL, 10);
	}
}

/* Read header or claims: one object. */
static bool
read_object(Jwt *jwt, SimArena *arena, const char *s, size_t len)
{
	size_t		n;
	char	   *text = (char *) decode(arena, s, len, &n);
	SimJson		j;
	SimScalar	name,
				value;
	bool		first = true;

	if (text == NULL)
		return false;
	sim_json_begin(&j, text, n);
	if (!sim_json_enter(&j, '{'))
		return false;
	while (sim_json_next_member(&j, &first, &name))
	{
		SimStr		key = {sim_arena_strndup(arena, name.text.s, name.text.len), name.text.len};

		if (sim_json_peek(&j) == SIM_JSON_OBJECT || sim_json_peek(&j) == SIM_JSON_ARRAY)
		{
			if (!sim_json_skip(&j))
				return false;
			continue;
		}
		if (!sim_json_scalar(&j, &value))
			return false;
		take_member(jwt, arena, key, &value);
	}
	return j.error == NULL && sim_json_at_end(&j);
}

/* Take a JWT apart: three parts between points. */
static bool
read_jwt(Jwt *jwt, SimArena *arena, const char *text)
{
	const char *claims = strchr(text, '.');
	const char *signature = claims != NULL ? strchr(claims + 1, '.') : NULL;

	memset(jwt, 0, sizeof *jwt);
	if (signature == NULL)
		return false;
	jwt->signed_len = (size_t) (signature - text);
	jwt->signature = decode(arena, signature + 1, strlen(signature + 1), &jwt->signature_len);
	return jwt->signature != NULL && read_object(jwt, arena, text, (size_t) (claims - text)) &&
		read_object(jwt, arena, claims + 1, (size_t) (signature - claims - 1));
}

/* Is "x5t#S256" the digest of this certificate? */
static bool
names_certificate(const Jwt *jwt, SimArena *arena, X509 *certificate)
{
	unsigned char digest[EVP_MAX_MD_SIZE];
	unsigned	digest_len = 0;
	size_t		len = 0;
	unsigned char *named = jwt->digest != NULL ? decode(arena, jwt->digest, strlen(jwt->digest), &len) : NULL;

	return named != NULL && X509_digest(certificate, EVP_sha256(), digest, &digest_len) == 1 && len == digest_len &&
		memcmp(named, digest, len) == 0;
}

static bool
signature_fits(const Jwt *jwt, const char *text, X509 *certificate)
{
	EVP_MD_CTX *context = EVP_MD_CTX_new();
	EVP_PKEY_CTX *padding;
	EVP_PKEY   *key = X509_get0_pubkey(certificate);
	bool		fits;

	fits = context != NULL && key != NULL && EVP_PKEY_base_id(key) == EVP_PKEY_RSA &&
		EVP_DigestVerifyInit(context, &padding, EVP_sha256(), NULL, key) == 1 &&
		EVP_PKEY_CTX_set_rsa_padding(padding, RSA_PKCS1_PSS_PADDING) == 1 &&
		EVP_PKEY_CTX_set_rsa_pss_saltlen(padding, RSA_PSS_SALTLEN_DIGEST) == 1 &&
		EVP_DigestVerify(context, jwt->signature, jwt->signature_len, (const unsigned char *) text, jwt->signed_len) == 1;
	EVP_MD_CTX_free(context);
	return fits;
}

SimRefusal
sim_assertion_check(SimArena *arena, const char *text, void *certificate, const char *audience, const char *client)
{
	Jwt			jwt;
	time_t		now = time(NULL);

	if (!read_jwt(&jwt, arena, text) || jwt.alg == NULL || strcmp(jwt.alg, "PS256") != 0 ||
		(jwt.typ != NULL && strcasecmp(jwt.typ, "JWT") != 0))
		return (SimRefusal) {50027, "JWT token is invalid or malformed."};
	if (!names_certificate(&jwt, arena, certificate))
		return (SimRefusal) {700027, "The certificate with identifier used to sign the client assertion is not registered on application."};
	if (!signature_fits(&jwt, text, certificate) || X509_cmp_time(X509_get0_notAfter(certificate), &now) <= 0)
		return (SimRefusal) {700027, "Client assertion failed signature validation."};
	if (jwt.jti == NULL || jwt.jti[0] == '\0')
		return (SimRefusal) {50027, "JWT token is invalid or malformed."};
	if (jwt.iss == NULL || jwt.sub == NULL || strcasecmp(jwt.iss, client) != 0 || strcasecmp(jwt.sub, client) != 0)
		return (SimRefusal) {700021, "Client assertion application identifier doesn't match 'client_id' parameter."};
	if (jwt.aud == NULL || strcmp(jwt.aud, audience) != 0)
		return (SimRefusal) {700023, "Client assertion audience claim does not match Realm issuer."};
	if (jwt.nbf == 0 || jwt.iat == 0 || jwt.nbf > now || jwt.iat > now || jwt.exp <= now || jwt.exp - jwt.nbf > LONGEST_S)
		return (SimRefusal) {700024, "Client assertion is not within its valid time range."};
	return (SimRefusal) {0, NULL};
}
