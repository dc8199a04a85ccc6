# One image for all of Parley: the API (default command), the worker (src/processes/worker.ts) and the migrations (src/processes/migrate.ts).
# Debian rather than Alpine, because Temporal's native module is built for glibc.
# Node's current LTS; CI runs the main suites on it (.ci/run).
ARG NODE_IMAGE=node:26.12.1-trixie-slim

FROM ${NODE_IMAGE} AS base
WORKDIR /app
ENV CHECKPOINT_DISABLE=1 NPM_CONFIG_AUDIT=false NPM_CONFIG_FUND=false NPM_CONFIG_UPDATE_NOTIFIER=false
COPY package.json package-lock.json ./

# Runtime dependencies, in the versions of the lock file. No install script is needed, because the native modules come prebuilt.
# Without devDependencies in package.json, npm also leaves out what is otherwise an optional peer, such as prisma and its tools.
# Temporal's native modules for other platforms are removed.
FROM base AS dependencies
RUN npm pkg delete devDependencies \
  && npm install --omit=dev --ignore-scripts \
  && find node_modules/@temporalio/core-bridge/releases -mindepth 1 -maxdepth 1 ! -name "$(uname -m)-unknown-linux-gnu" -exec rm -rf {} +

# Generated from the sources: the Prisma client and the workflow bundle.
FROM base AS build
RUN npm ci --ignore-scripts
COPY . .
RUN node prisma/generate.mjs
RUN node --import tsx --eval "require('./src/processes/workflow-bundle.ts').workflowBundle().then(({ codePath }) => console.log(codePath))"

FROM base AS runtime
ENV NODE_ENV=production
COPY --from=dependencies /app/node_modules ./node_modules
COPY --from=build /app/tsconfig.json ./
COPY --from=build /app/prisma ./prisma
COPY --from=build /app/src ./src
COPY --from=build /app/activities ./activities
COPY --from=build /app/workflows ./workflows
COPY --from=build /app/dist ./dist
# The files belong to root: the processes can read them, and write only to /tmp and to a volume mounted at /data.
RUN mkdir /data && chown node:node /data
USER node
EXPOSE 3000
STOPSIGNAL SIGTERM
# For the API, the default command; docker-compose.yml sets the worker's own check, and the migrations need none.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
  CMD ["node", "--eval", "fetch('http://127.0.0.1:' + (process.env.PORT || 3000) + '/healthz').then((answer) => process.exit(answer.ok ? 0 : 1), () => process.exit(1))"]
# Exec form and without npm, so that SIGTERM reaches Node.
CMD ["node", "--import", "tsx", "src/processes/server.ts"]
