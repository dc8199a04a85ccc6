/**
 * Assembles the OpenAPI document from the `…Paths` objects that the route files export. Their zod schemas also parse the
 * requests. A new route file needs one line in `apiPaths`.
 */
import { createDocument, type oas31, type ZodOpenApiPathsObject } from 'zod-openapi';
import { version } from '../../package.json';
import { auditPaths } from '../api/audit';
import { callPaths } from '../api/calls';
import { conversationModePaths } from '../api/conversation-modes';
import { conversationPaths } from '../api/conversations';
import { deadLetterPaths } from '../api/dead-letters';
import { sendByHandOperation } from '../api/hand-messages';
import { keyPaths } from '../api/keys';
import { messagePaths } from '../api/messages';
import { metricsPaths } from '../api/metrics';
import { modePaths } from '../api/modes';
import { notePaths } from '../api/notes';
import { parkedMessagePaths } from '../api/parked-messages';
import { recordingPath } from '../api/recording';
import { sessionResultPaths } from '../api/session-result';
import { syncPaths } from '../api/workspace-sync';
import { webhookPaths } from '../api/workspace-webhook';
import { workspacePaths } from '../api/workspaces';
import { docsPaths } from '../http/docs';
import { healthPaths } from '../http/health';
import { permissionTable } from '../http/permissions';
import { kapsoPaths } from '../webhooks/kapso';
import { vapiPaths } from '../webhooks/vapi';

/** Every path of the application. */
export const apiPaths: ZodOpenApiPathsObject = {
  ...conversationPaths,
  ...notePaths,
  ...sessionResultPaths,
  ...messagePaths,
  ...metricsPaths,
  ...conversationModePaths,
  ...modePaths,
  '/api/v1/conversations/{id}/messages': { ...conversationPaths['/api/v1/conversations/{id}/messages'], post: sendByHandOperation },
  ...syncPaths,
  ...webhookPaths,
  ...parkedMessagePaths,
  ...callPaths,
  '/api/v1/vapi/calls/{callId}/recording': recordingPath,
  ...deadLetterPaths,
  ...workspacePaths,
  ...keyPaths,
  ...auditPaths,
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
        'Paths under `/api/v1` require a bearer key, webhooks a signature; all other paths are public.',
        'A key is one of `API_KEYS`, which opens the whole installation, or a key of one workspace, which opens nothing else: what belongs to another workspace is a 404. Each operation names the permission that it needs (`security`); a role without it gets a 403.',
        permissionTable(),
        'Every error response is a problem document (RFC 9457, `application/problem+json`); with a 5xx status it has an `id` that is also in the log.',
        'A known path answers an unsupported method with 405 and `Allow`, and OPTIONS with 204 and `Allow`; an unknown path is a 404.',
        'Requests are limited per minute: the API per key; pages and unsigned webhooks per IP address. Signed webhooks are never limited. Limited responses of the API and the pages have `RateLimit` and `RateLimit-Policy`, and a 429 has `Retry-After`.',
      ].join('\n\n'),
      license: { name: 'Apache-2.0', identifier: 'Apache-2.0' },
    },
    servers: [{ url: '/' }],
    tags: [
      { name: 'Conversations', description: 'WhatsApp conversations and their messages, newest first.' },
      { name: 'Calls', description: 'Voice calls and their results.' },
      { name: 'Workspaces', description: 'The businesses of this installation: keys, history, and the webhook at Kapso.' },
      { name: 'Metrics', description: 'The numbers of each day, and whether every message is accounted for.' },
      { name: 'Webhooks', description: "Endpoints for the providers' events. Signed; a 200 means that the event is stored." },
      { name: 'Dead letters', description: 'What could not be read or stored, kept with its reason until it is replayed.' },
      { name: 'Operation', description: 'Health, metrics and this document.' },
    ],
    components: {
      securitySchemes: {
        bearer: {
          type: 'http',
          scheme: 'bearer',
          description: 'A key of a workspace, or one of `API_KEYS`; `npm start` prints the one that it generated (`.data/api-key`).',
        },
      },
    },
    paths: apiPaths,
  });
}
