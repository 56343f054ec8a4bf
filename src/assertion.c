/*
 * assertion.c - signing in with a certificate: the client assertion (RFC 7523)
 *
 * Instead of a secret the login service gets a short-lived JWT that names the
 * certificate by its digest and is signed with its key: the key stays here.
 * Header and claims are those of Microsoft's "certificate credentials" page.
 */
#include "assertion.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>

#include "wiretext.h"

/*
 * The service wants five to ten minutes from nbf to exp. It begins a minute ago,
 * for clocks that differ, and lasts longer than a login may take.
 */
#define SKEW_S	60
#define LIFE_S	(8 * 60)

#define DIGEST_LEN	32

/* Characters of base64 for n bytes, with padding and the end of the string. */
#define BASE64_LEN(n)	(((n) + 2) / 3 * 4 + 1)

/* ---------------------------------------------------------------- files */

/* Without it the library would ask on the terminal of the server. */
static int
refuse_password(char *buf, int size, int writing, void *asked)
{
	(void) buf;
	(void) size;
	(void) writing;
	*(bool *) asked = true;
	return -1;
}

static X509 *
read_certificate(const DvAssertion *assertion)
{
	BIO		   *bio = BIO_new_mem_buf(assertion->certificate, (int) assertion->certificate_len);
	X509	   *certificate = bio ? PEM_read_bio_X509(bio, NULL, NULL, NULL) : NULL;

	BIO_free(bio);
	return certificate;
}

static EVP_PKEY *
read_key(const DvAssertion *assertion, bool *encrypted)
{
	BIO		   *bio = BIO_new_mem_buf(assertion->key, (int) assertion->key_len);
	EVP_PKEY   *key;

	*encrypted = false;
	key = bio ? PEM_read_bio_PrivateKey(bio, NULL, refuse_password, encrypted) : NULL;
	BIO_free(bio);
	return key;
}

static void
format_date(const ASN1_TIME *date, char *text)
{
	struct tm	tm;

	if (ASN1_TIME_to_tm(date, &tm) != 1 || strftime(text, DV_ASSERTION_DATE, "%Y-%m-%d %H:%M:%S UTC", &tm) == 0)
		snprintf(text, DV_ASSERTION_DATE, "an unknown time");
}

static void
tell_dates(DvAssertion *assertion, X509 *certificate)
{
	ASN1_TIME  *now = ASN1_TIME_set(NULL, assertion->now);
	int			days;
	int			seconds;

	format_date(X509_get0_notBefore(certificate), assertion->valid_from);
	format_date(X509_get0_notAfter(certificate), assertion->valid_to);
	if (now != NULL && ASN1_TIME_diff(&days, &seconds, now, X509_get0_notAfter(certificate)) == 1 && days >= 0 && seconds >= 0)
		assertion->days_left = days;
	ASN1_TIME_free(now);
}

/* Is this a pair that the service can take now? */
static DvAssertionFault
judge(const DvAssertion *assertion, X509 *certificate, EVP_PKEY *key)
{
	time_t		now = assertion->now;

	if (EVP_PKEY_base_id(key) != EVP_PKEY_RSA)
		return DV_ASSERTION_NOT_RSA;
	if (EVP_PKEY_bits(key) < DV_ASSERTION_KEY_BITS)
		return DV_ASSERTION_SHORT_KEY;
	if (X509_check_private_key(certificate, key) != 1)
		return DV_ASSERTION_MISMATCH;
	/* 0 is a date that cannot be read */
	if (X509_cmp_time(X509_get0_notBefore(certificate), &now) >= 0)
		return DV_ASSERTION_NOT_YET;
	if (X509_cmp_time(X509_get0_notAfter(certificate), &now) <= 0)
		return DV_ASSERTION_EXPIRED;
	return DV_ASSERTION_GOOD;
}

/* ---------------------------------------------------------------- text */

/* Base64 with the alphabet for URLs, without padding; returns the end. */
static char *
put_base64(char *to, const unsigned char *bytes, size_t len)
{
	int			n = EVP_EncodeBlock((unsigned char *) to, bytes, (int) len);

	for (int i = 0; i < n; i++)
		if (to[i] == '+')
			to[i] = '-';
		else if (to[i] == '/')
			to[i] = '_';
	while (n > 0 && to[n - 1] == '=')
		n--;
	to[n] = '\0';
	return to + n;
}

static char *
put_literal(char *to, const char *text)
{
	size_t		len = strlen(text);

	memcpy(to, text, len);
	return to + len;
}

/* A JSON string; needs six bytes for each, and two. */
static char *
put_string(char *to, const char *text)
{
	*to++ = '"';
	for (; *text; text++)
	{
		unsigned char c = (unsigned char) *text;

		if (c < 0x20)
			to += snprintf(to, 7, "\\u%04x", c);
		else
		{
			if (c == '"' || c == '\\')
				*to++ = '\\';
			*to++ = (char) c;
		}
	}
	*to++ = '"';
	return to;
}

/* A random GUID (RFC 9562, version 4), for what makes each assertion another one. */
static bool
make_guid(char guid[37])
{
	unsigned char b[16];

	if (RAND_bytes(b, sizeof(b)) != 1)
		return false;
	b[6] = (unsigned char) ((b[6] & 0x0f) | 0x40);
	b[8] = (unsigned char) ((b[8] & 0x3f) | 0x80);
	dv_wiretext_format_uuid(b, guid);
	return true;
}

/* Header: how it is signed, and with which certificate. Returns the end; NULL: failed. */
static char *
put_header(char *to, X509 *certificate)
{
	unsigned char digest[EVP_MAX_MD_SIZE];
	unsigned int digest_len;
	char		json[64 + BASE64_LEN(DIGEST_LEN)];
	char	   *end;

	if (X509_digest(certificate, EVP_sha256(), digest, &digest_len) != 1 || digest_len != DIGEST_LEN)
		return NULL;
	end = put_literal(json, "{\"alg\":\"PS256\",\"typ\":\"JWT\",\"x5t#S256\":\"");
	end = put_base64(end, digest, digest_len);
	end = put_literal(end, "\"}");
	return put_base64(to, (unsigned char *) json, (size_t) (end - json));
}

/* Claims: who, to whom, when. "json" is room for them. Returns the end; NULL: failed. */
static char *
put_claims(char *to, char *json, const DvAssertion *assertion)
{
	char		guid[37];
	char	   *end;

	if (!make_guid(guid))
		return NULL;
	end = put_literal(json, "{\"aud\":");
	end = put_string(end, assertion->audience);
	end = put_literal(end, ",\"iss\":");
	end = put_string(end, assertion->client_id);
	end = put_literal(end, ",\"sub\":");
	end = put_string(end, assertion->client_id);
	end += snprintf(end, 160, ",\"jti\":\"%s\",\"nbf\":%lld,\"iat\":%lld,\"exp\":%lld}", guid,
					(long long) assertion->now - SKEW_S, (long long) assertion->now, (long long) assertion->now + LIFE_S);
	return put_base64(to, (unsigned char *) json, (size_t) (end - json));
}

/* ---------------------------------------------------------------- signature */

/* RSA with PSS over SHA-256, the salt as long as the digest: PS256. */
static bool
sign(EVP_PKEY *key, const char *text, size_t len, unsigned char *signature, size_t *signature_len)
{
	EVP_MD_CTX *context = EVP_MD_CTX_new();
	EVP_PKEY_CTX *padding = NULL;
	bool		ok;

	ok = context != NULL &&
		EVP_DigestSignInit(context, &padding, EVP_sha256(), NULL, key) == 1 &&
		EVP_PKEY_CTX_set_rsa_padding(padding, RSA_PKCS1_PSS_PADDING) == 1 &&
		EVP_PKEY_CTX_set_rsa_pss_saltlen(padding, RSA_PSS_SALTLEN_DIGEST) == 1 &&
		EVP_DigestSign(context, signature, signature_len, (const unsigned char *) text, len) == 1;
	EVP_MD_CTX_free(context);
	return ok;
}

/* Fills in assertion->jwt. All room is taken at once, so that nothing is copied about. */
static bool
make_jwt(DvAssertion *assertion, X509 *certificate, EVP_PKEY *key)
{
	size_t		claims_len = 6 * (strlen(assertion->audience) + 2 * strlen(assertion->client_id)) + 256;
	size_t		signature_len = (size_t) EVP_PKEY_size(key);
	char	   *json = malloc(claims_len);
	unsigned char *signature = malloc(signature_len);
	char	   *jwt = malloc(256 + BASE64_LEN(claims_len) + BASE64_LEN(signature_len));
	char	   *end = json && signature && jwt ? put_header(jwt, certificate) : NULL;

	if (end != NULL)
	{
		*end++ = '.';
		end = put_claims(end, json, assertion);
	}
	if (end != NULL && sign(key, jwt, (size_t) (end - jwt), signature, &signature_len))
	{
		*end++ = '.';
		put_base64(end, signature, signature_len);
		assertion->jwt = jwt;
	}
	else
		free(jwt);
	free(signature);
	free(json);
	return assertion->jwt != NULL;
}

/* Read the certificate, with its dates; NULL where there is none. */
static X509 *
begin(DvAssertion *assertion)
{
	X509	   *certificate = read_certificate(assertion);

	assertion->jwt = NULL;
	assertion->valid_from[0] = assertion->valid_to[0] = '\0';
	assertion->days_left = -1;
	if (certificate != NULL)
		tell_dates(assertion, certificate);
	return certificate;
}

DvAssertionFault
dv_assertion_make(DvAssertion *assertion)
{
	X509	   *certificate = begin(assertion);
	bool		encrypted = false;
	EVP_PKEY   *key = certificate ? read_key(assertion, &encrypted) : NULL;
	DvAssertionFault fault;

	if (certificate == NULL)
		fault = DV_ASSERTION_NO_CERTIFICATE;
	else if (key == NULL)
		fault = encrypted ? DV_ASSERTION_ENCRYPTED : DV_ASSERTION_NO_KEY;
	else
		fault = judge(assertion, certificate, key);
	if (fault == DV_ASSERTION_GOOD && !make_jwt(assertion, certificate, key))
		fault = DV_ASSERTION_FAILED;
	EVP_PKEY_free(key);
	X509_free(certificate);
	/* the server and libcurl look at the same queue: what is in it is not theirs */
	ERR_clear_error();
	return fault;
}

bool
dv_assertion_dates(DvAssertion *assertion)
{
	X509	   *certificate = begin(assertion);
	bool		found = certificate != NULL;

	X509_free(certificate);
	ERR_clear_error();
	return found;
}
