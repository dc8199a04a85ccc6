/** `/openapi.json`, and the page `/docs`: Swagger UI from the installed package, without other hosts or inline scripts. */
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { type Response, Router } from 'express';
import { z } from 'zod';
import type { oas31, ZodOpenApiPathsObject } from 'zod-openapi';
import { guardedProblems, problems, tooManyRequests } from './errors';

/** The files of the page; no other file of the package is served. */
const ASSETS = {
  'swagger-ui.css': 'text/css; charset=utf-8',
  'swagger-ui-bundle.js': 'text/javascript; charset=utf-8',
  'favicon-32x32.png': 'image/png',
  'page.js': 'text/javascript; charset=utf-8',
} as const;
type Asset = keyof typeof ASSETS;

const documentSchema = z.looseObject({ openapi: z.literal('3.1.0'), info: z.looseObject({}), paths: z.looseObject({}) });
const assetParameters = z.object({ file: z.enum(Object.keys(ASSETS) as [Asset, ...Asset[]]).meta({ description: 'A file of the page.' }) });

const limited = { 429: tooManyRequests, 500: guardedProblems[500] };

export const docsPaths: ZodOpenApiPathsObject = {
  '/openapi.json': {
    get: {
      tags: ['Operation'],
      summary: 'This document',
      operationId: 'getOpenApiDocument',
      responses: { 200: { description: 'OpenAPI 3.1.', content: { 'application/json': { schema: documentSchema } } }, ...limited },
    },
  },
  '/docs': {
    get: {
      tags: ['Operation'],
      summary: 'This document as a page',
      operationId: 'getDocs',
      responses: { 200: { description: 'The page.', content: { 'text/html': { schema: z.string() } } }, ...limited },
    },
  },
  '/docs/{file}': {
    get: {
      tags: ['Operation'],
      summary: 'A file of the page',
      operationId: 'getDocsFile',
      requestParams: { path: assetParameters },
      responses: {
        200: {
          description: 'The file.',
          content: {
            'text/css': { schema: z.string() },
            'text/javascript': { schema: z.string() },
            'image/png': { schema: { type: 'string', contentMediaType: 'image/png' } },
          },
        },
        ...problems({ 400: 'The request could not be read.', 404: 'No such file.' }),
        ...limited,
      },
    },
  },
};

/** Swagger UI uses style attributes and data: images; everything else is served from here. */
const CONTENT_SECURITY_POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self' 'unsafe-inline'",
  "img-src 'self' data:",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join('; ');

const PAGE = `<!doctype html>
<html lang="en">
  <head>
    <meta charset="utf-8">
    <meta name="viewport" content="width=device-width, initial-scale=1">
    <title>Parley API</title>
    <link rel="stylesheet" href="/docs/swagger-ui.css">
    <link rel="icon" type="image/png" href="/docs/favicon-32x32.png">
  </head>
  <body>
    <div id="page"></div>
    <script src="/docs/swagger-ui-bundle.js"></script>
    <script src="/docs/page.js"></script>
  </body>
</html>
`;

/** No validator: it would send the document to a Swagger host. */
const SCRIPT = `SwaggerUIBundle({ url: '/openapi.json', dom_id: '#page', deepLinking: true, validatorUrl: null, defaultModelsExpandDepth: 0 });
`;

/** Routes of the document and its page. */
export function docsRoutes(document: oas31.OpenAPIObject): Router {
  const text = JSON.stringify(document);
  const files = readAssets();
  const router = Router();
  router.get('/openapi.json', (_request, response) => {
    response.type('application/json').send(text);
  });
  // Not in the document: for people who open the root URL.
  router.get('/', (_request, response) => response.redirect('/docs'));
  router.get('/docs', (_request, response) => {
    withSecurityHeaders(response).type('text/html').send(PAGE);
  });
  router.get('/docs/:file', (request, response, next) => {
    const known = assetParameters.safeParse(request.params);
    if (!known.success) return next();
    withSecurityHeaders(response)
      .set('Content-Type', ASSETS[known.data.file])
      .set('Cache-Control', 'public, max-age=3600')
      .send(files[known.data.file]);
  });
  return router;
}

function withSecurityHeaders(response: Response): Response {
  return response.set({
    'Content-Security-Policy': CONTENT_SECURITY_POLICY,
    'X-Content-Type-Options': 'nosniff',
    'Referrer-Policy': 'no-referrer',
  });
}

function readAssets(): Record<Asset, Buffer> {
  const dir = dirname(require.resolve('swagger-ui-dist/package.json'));
  const read = (file: Asset) => readFileSync(join(dir, file));
  return {
    'swagger-ui.css': read('swagger-ui.css'),
    'swagger-ui-bundle.js': read('swagger-ui-bundle.js'),
    'favicon-32x32.png': read('favicon-32x32.png'),
    'page.js': Buffer.from(SCRIPT),
  };
}
