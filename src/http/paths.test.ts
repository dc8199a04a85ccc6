import { apiPaths } from '../processes/openapi';
import { pathFinder } from './paths';

const find = pathFinder(apiPaths);

test.each([
  ['/healthz', '/healthz'],
  ['/healthz/', '/healthz'],
  ['/HEALTHZ', '/healthz'],
  ['/openapi.json', '/openapi.json'],
  ['/openapiXjson', undefined],
  ['/api/v1/conversations', '/api/v1/conversations'],
  ['/api/v1/conversations/some-id', '/api/v1/conversations/{id}'],
  ['/api/v1/conversations/some-id/messages', '/api/v1/conversations/{id}/messages'],
  ['/api/v1/conversations/some-id/other', undefined],
  ['/', undefined],
  ['/constructor', undefined],
])('when %s is requested, then its path in the document is %s', (address, template) => {
  expect(find(address)?.template).toBe(template);
});

test('when a path supports GET, then it also supports HEAD and OPTIONS', () => {
  expect(find('/webhook/kapso')?.allow).toBe('GET, POST, HEAD, OPTIONS');
});
