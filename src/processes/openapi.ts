/**
 * The OpenAPI document of the whole API, joined from what stands beside the routes. Each file in src/api exports its zod
 * schemas, which read the requests as well, and a `…Paths` object; a new file is one line in `apiPaths`.
 */
import { createDocument, type oas31, type ZodOpenApiPathsObject } from 'zod-openapi';
import { version } from '../../package.json';
import { callPaths } from '../api/calls';
import { conversationPaths } from '../api/conversations';
import { recordingPath } from '../api/recording';
import { docsPaths } from '../http/docs';
import { healthPaths } from '../http/health';
import { kapsoPaths } from '../webhooks/kapso';
import { vapiPaths } from '../webhooks/vapi';

/** Every path that the application answers. */
export const apiPaths: ZodOpenApiPathsObject = {
  ...conversationPaths,
  ...callPaths,
  '/api/v1/vapi/calls/{callId}/recording': recordingPath,
  ...kapsoPaths,
  ...vapiPaths,
  ...healthPaths,
  ...docsPaths,
};

/** Builds the document (OpenAPI 3.1). */
export function openApiDocument(): oas31.OpenAPIObject {
  return createDocument({
    openapi: '3.1.0',
    info: {
      title: 'Parley',
      version,
      description: [
        'Answers WhatsApp messages with an AI and follows voice calls to their end, durably.',
        'Addresses under `/api/v1` want a bearer key (`API_KEYS`), webhooks a signature, the others nothing.',
        'Every answer from 400 on is a problem (RFC 9457, `application/problem+json`); from 500 on it has an `id` that stands in the log.',
        'A known address answers a method that it does not have with 405 and `Allow`, OPTIONS with 204 and `Allow`, and an unknown address is 404.',
        'Requests are limited per minute: webhooks and pages per address, the API per key. `RateLimit` and `RateLimit-Policy` stand in each limited answer, `Retry-After` in a 429.',
      ].join('\n\n'),
      license: { name: 'Apache-2.0', identifier: 'Apache-2.0' },
    },
    servers: [{ url: '/' }],
    tags: [
      { name: 'Conversations', description: 'What was said on WhatsApp, newest first.' },
      { name: 'Calls', description: 'Voice calls and their results.' },
      { name: 'Webhooks', description: 'Where providers report. Signed; answered 200 only when the event is stored.' },
      { name: 'Operation', description: 'Health, metrics and this document.' },
    ],
    components: {
      securitySchemes: {
        bearer: {
          type: 'http',
          scheme: 'bearer',
          description: 'One of `API_KEYS`; `npm start` prints the one that it made (`.data/api-key`).',
        },
      },
    },
    paths: apiPaths,
  });
}
