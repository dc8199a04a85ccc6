/** Bundles the workflow code into one file, cached by a hash of its sources, because bundling takes seconds at a worker's start. */
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, readdir, readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type BundleOptions, bundleWorkflowCode } from '@temporalio/worker';
import { version } from '@temporalio/worker/package.json';

const WORKFLOWS = join(__dirname, '..', '..', 'workflows');
const ENTRY = join(WORKFLOWS, 'index.ts');
const CACHE_DIR = join(__dirname, '..', '..', 'dist');

export interface CachedBundle {
  codePath: string;
  /** Hash of the sources, and of how they are bundled. */
  hash: string;
}

/** Returns the bundle; builds it if there is none for the current sources. */
export async function workflowBundle(): Promise<CachedBundle> {
  const hash = await sourcesHash();
  const codePath = join(CACHE_DIR, `workflows-${hash}.js`);
  if (!existsSync(codePath)) {
    const { code } = await bundleWorkflowCode({
      workflowsPath: ENTRY,
      // Runs the modules once instead of once per workflow: they keep no state (workflow-bundle.test.ts).
      preloadModules: [ENTRY],
      webpackConfigHook: compileForNode20,
      logger: silent,
    });
    await mkdir(CACHE_DIR, { recursive: true });
    // Write to a temporary file and rename it: two workers may start at once.
    const unfinished = `${codePath}.${process.pid}`;
    await writeFile(unfinished, code);
    await rename(unfinished, codePath);
  }
  return { codePath, hash };
}

type WebpackConfig = Parameters<NonNullable<BundleOptions['webpackConfigHook']>>[0];

/** The SDK compiles for ES2017, which makes a WeakMap of each private field. */
function compileForNode20(config: WebpackConfig): WebpackConfig {
  for (const rule of config.module?.rules ?? []) {
    const use = typeof rule === 'object' ? rule?.use : undefined;
    const options = typeof use === 'object' && 'options' in use ? (use.options as { jsc?: { target: string } }) : {};
    if (options.jsc) options.jsc.target = 'es2022';
  }
  return config;
}

async function sourcesHash(): Promise<string> {
  const hash = createHash('sha256')
    .update(version)
    .update(await readFile(__filename));
  const files = (await readdir(WORKFLOWS, { recursive: true })).filter((file) => file.endsWith('.ts') && !file.endsWith('.test.ts')).sort();
  for (const file of files) hash.update(file).update(await readFile(join(WORKFLOWS, file)));
  return hash.digest('hex').slice(0, 16);
}

const quiet = () => undefined;
const silent = { log: quiet, trace: quiet, debug: quiet, info: quiet, warn: quiet, error: quiet };
