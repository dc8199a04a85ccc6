/** What in a body of Vapi's must not be found anywhere else. */

const SECRET_FIELD = /token|secret|sid$|authorization|controlUrl|listenUrl|presigned.*Url$|phoneCallProviderId$/i;

/** Every secret value of a body: by its field's name, or because the fixture marks it as FAKE. Not ids of tool calls, which are answered with. */
export function secretsIn(body: unknown, field = ''): string[] {
  if (typeof body === 'string') {
    const isMarked = /FAKE/.test(body) && !/^call_FAKE/.test(body);
    return isMarked || SECRET_FIELD.test(field) ? [body] : [];
  }
  if (typeof body !== 'object' || body === null) return [];
  return [...new Set(Object.entries(body).flatMap(([name, inner]) => secretsIn(inner, Array.isArray(body) ? field : name)))];
}
