/** Finds the secrets in Vapi's bodies, which must not appear anywhere else. */

const SECRET_FIELD = /token|secret|sid$|authorization|controlUrl|listenUrl|presigned.*Url$|phoneCallProviderId$/i;

/** All secret values of a body: by field name, or marked FAKE in the fixture. Excludes tool call ids, which responses contain. */
export function secretsIn(body: unknown, field = ''): string[] {
  if (typeof body === 'string') {
    const isMarked = /FAKE/.test(body) && !/^call_FAKE/.test(body);
    return isMarked || SECRET_FIELD.test(field) ? [body] : [];
  }
  if (typeof body !== 'object' || body === null) return [];
  return [...new Set(Object.entries(body).flatMap(([name, inner]) => secretsIn(inner, Array.isArray(body) ? field : name)))];
}
