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
])('when %s is asked for, then its path in the document is %s', (address, template) => {
  expect(find(address)?.template).toBe(template);
});

test('when a path can be read, then it can be asked for its head and its methods as well', () => {
  expect(find('/webhook/kapso')?.allow).toBe('GET, POST, HEAD, OPTIONS');
});
