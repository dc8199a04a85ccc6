import { STATUS_CODES } from 'node:http';
import type { oas31 } from 'zod-openapi';
import { PERMISSIONS, permissionOf, ROLES, type Role } from '../http/permissions';
import { openApiDocument } from './openapi';

const METHODS = ['get', 'put', 'post', 'patch', 'delete'] as const;

const document = openApiDocument();
const operations = Object.entries(document.paths ?? {}).flatMap(([path, item]) =>
  METHODS.flatMap((method) => (item[method] ? [{ name: `${method.toUpperCase()} ${path}`, path, operation: item[method] }] : [])),
);

function resolved(response: oas31.ResponseObject | oas31.ReferenceObject): oas31.ResponseObject {
  if (!('$ref' in response)) return response as oas31.ResponseObject;
  const found = document.components?.responses?.[response.$ref.split('/').at(-1) ?? ''];
  if (!found || '$ref' in found) throw new Error(`${response.$ref} leads nowhere`);
  return found as oas31.ResponseObject;
}

test('when the document is built, then it is OpenAPI 3.1 with a bearer key', () => {
  expect(document.openapi).toBe('3.1.0');
  expect(document.components?.securitySchemes?.bearer).toMatchObject({ type: 'http', scheme: 'bearer' });
});

test('when operations are documented, then each has a unique operation id, a summary and declared tags', () => {
  const names = operations.map(({ operation }) => operation.operationId);
  expect(new Set(names).size).toBe(operations.length);
  const tags = new Set(document.tags?.map((tag) => tag.name));
  for (const { operation } of operations) {
    expect(operation.operationId).toMatch(/^[a-z][A-Za-z0-9]+$/);
    expect(operation.summary).toBeTruthy();
    expect(operation.tags?.every((tag) => tags.has(tag))).toBe(true);
  }
});

test.each(operations)(
  'when $name fails, then every error response is a problem document with a matching example, except for /readyz',
  ({ path, operation }) => {
    for (const [status, response] of Object.entries(operation.responses ?? {})) {
      if (!/^[45]/.test(status) || path === '/readyz') continue;
      const { content = {} } = resolved(response as oas31.ResponseObject);
      expect(Object.keys(content)).toEqual(['application/problem+json']);
      expect(content['application/problem+json']?.example).toMatchObject({ status: Number(status), title: STATUS_CODES[status] });
    }
  },
);

test.each(operations.filter(({ path }) => path.startsWith('/api/v1/') && !path.includes('/webhook')))(
  'when $name requires a key, then it names its permission, and 400, 401, 403, 429, 500 and 503 are documented',
  ({ operation }) => {
    expect(Object.keys(operation.responses ?? {})).toEqual(expect.arrayContaining(['400', '401', '403', '429', '500', '503']));
    expect(permissionOf(operation)).toBeDefined();
    expect(operation.security).toHaveLength(1);
  },
);

test('when the document is read, then its table has each role of each permission', () => {
  const rows = (document.info.description ?? '').split('\n').filter((line) => line.startsWith('| `'));
  const cells = (roles: readonly Role[]) => ROLES.map((role) => (roles.includes(role) ? 'yes' : '')).join(' | ');
  expect(rows).toEqual(Object.entries(PERMISSIONS).map(([permission, roles]) => `| \`${permission}\` | ${cells(roles)} |`));
});

test('when a call is placed, then the response for an unsupported content encoding is documented', () => {
  expect(document.paths?.['/api/v1/vapi/calls']?.post?.responses).toHaveProperty('415');
});
