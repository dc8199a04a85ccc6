/** `npm run setup` creates or corrects Kapso's webhook to Parley. Shows what it found, and asks before it changes anything. */
import { randomBytes } from 'node:crypto';
import { createInterface } from 'node:readline/promises';
import { readArguments, runCommand } from '../../platform/command-line';
import { loadEnvFile, type Settings, whatsAppState } from '../../platform/config';
import { type KapsoFailure, type KapsoProject, listNumbers, listWebhooks, type NumberWebhook } from '../../providers/kapso/platform';
import { applyPlan, describePlan, parleyWebhooks, plainUrl, planWebhook, type WantedWebhook } from '../../providers/kapso/webhook-setup';
import { TerminalError } from '../instance-file';
import { readSetUp } from '../set-up';
import { say } from '../terminal';

const HELP = `usage: npm run setup [-- --yes]

Sets up WhatsApp at Kapso: checks the key and the number, and creates or corrects the webhook to PUBLIC_URL (its events, secret, payload
version and buffering; switches a paused one on). Shows what it found, and asks before it changes anything. Needs KAPSO_API_KEY,
KAPSO_PHONE_NUMBER_ID, KAPSO_WEBHOOK_SECRET and PUBLIC_URL, and says how to set what is missing.

  --yes       do not ask
  -h, --help  show this help

exit status: 0 if the webhook is right now; 1 if not; 2 for wrong arguments; 78 for invalid settings`;

/** What is needed to set up the webhook. */
interface Target extends WantedWebhook {
  project: KapsoProject;
  phoneNumberId: string;
}

async function main(args: string[]): Promise<number> {
  const line = readArguments(args, { help: HELP, options: { yes: { type: 'boolean' } } });
  if (line === undefined) return 0;
  loadEnvFile();
  // biome-ignore lint/style/noProcessEnv: an entry point passes its environment to config.ts
  const { settings } = readSetUp(process.env);
  const target = await findTarget(settings);
  const rows = await webhooksOf(target);
  sayWebhooks(rows);
  const plan = planWebhook(rows, target);
  const changes = describePlan(plan);
  if (changes.length === 0) {
    say(`The webhook to ${target.publicUrl} is right. There is nothing to change.`);
    return 0;
  }
  say('\nTo be changed at Kapso:');
  for (const change of changes) say(`  - ${change}`);
  if (!line.values.yes && !(await isAgreed())) {
    say('Nothing was changed.');
    return 1;
  }
  const applied = await applyPlan(target.project, target.phoneNumberId, plan);
  if (applied.kind !== 'done') throw new TerminalError(`the webhook was not changed: ${failureOf(applied)}`);
  const left = describePlan(planWebhook(await webhooksOf(target), target));
  if (left.length > 0) throw new TerminalError(`Kapso has taken the change, but still: ${left.join('; ')}`);
  say('Done. `npm run doctor` checks the rest, with a test webhook.');
  return 0;
}

/** @throws TerminalError that says what to set */
async function findTarget(settings: Settings): Promise<Target> {
  const { KAPSO_API_KEY: apiKey, KAPSO_BASE_URL: baseUrl, KAPSO_PHONE_NUMBER_ID: phoneNumberId, KAPSO_WEBHOOK_SECRET: secrets } = settings;
  if (apiKey === undefined) throw new TerminalError('KAPSO_API_KEY is not set: set it to a key of your Kapso project (project → API keys)');
  const project = { baseUrl, apiKey };
  const number = await findNumber(project, phoneNumberId);
  const publicUrl = publicUrlOf(settings);
  if (secrets.length === 0)
    throw new TerminalError(
      `KAPSO_WEBHOOK_SECRET is not set: set it to a secret of your own, such as ${randomBytes(24).toString('hex')}, and run this again`,
    );
  return { project, phoneNumberId: number, publicUrl, secrets };
}

async function findNumber(project: KapsoProject, phoneNumberId: string | undefined): Promise<string> {
  const listed = await listNumbers(project);
  if (listed.kind !== 'rows') throw new TerminalError(failureOf(listed));
  say("Kapso's key works. The numbers of its project:");
  for (const { id, name } of listed.rows)
    say(`  ${id}${name === undefined ? '' : `  ${name}`}${id === phoneNumberId ? '  ← KAPSO_PHONE_NUMBER_ID' : ''}`);
  if (listed.rows.length === 0) say('  none: connect a number in Kapso');
  if (phoneNumberId === undefined) throw new TerminalError('KAPSO_PHONE_NUMBER_ID is not set: set it to one of these ids');
  if (!listed.rows.some(({ id }) => id === phoneNumberId))
    throw new TerminalError(`KAPSO_PHONE_NUMBER_ID is ${phoneNumberId}, which is none of these ids: set it to one of them`);
  return phoneNumberId;
}

function publicUrlOf(settings: Settings): string {
  const { PUBLIC_URL } = settings;
  if (PUBLIC_URL === undefined)
    throw new TerminalError(
      'PUBLIC_URL is not set: set it to the https address at which Kapso reaches the API, such as that of your tunnel',
    );
  if (!PUBLIC_URL.startsWith('https:') && whatsAppState(settings) === 'real')
    throw new TerminalError('PUBLIC_URL is not https, and Kapso sends to https only');
  return PUBLIC_URL;
}

async function webhooksOf({ project, phoneNumberId }: Target): Promise<NumberWebhook[]> {
  const listed = await listWebhooks(project, phoneNumberId);
  if (listed.kind !== 'rows') throw new TerminalError(failureOf(listed));
  return listed.rows;
}

function sayWebhooks(rows: readonly NumberWebhook[]): void {
  const webhooks = parleyWebhooks(rows);
  say(webhooks.length === 0 ? '\nThe number has no webhook to Parley.' : '\nWebhooks of the number to Parley:');
  for (const { url, isActive, kind } of webhooks)
    say(`  ${plainUrl(url)}  ${isActive ? 'active' : 'PAUSED'}${kind === 'meta' ? ', of the kind meta, which is not used' : ''}`);
}

/** Anything but yes is a no, including the end of the input. */
async function isAgreed(): Promise<boolean> {
  const terminal = createInterface({ input: process.stdin, output: process.stdout });
  try {
    const ended = new Promise<string>((resolve) => terminal.once('close', () => resolve('')));
    const answer = await Promise.race([terminal.question('Change this now? [y/N] '), ended]);
    return /^y(es)?$/i.test(answer.trim());
  } finally {
    terminal.close();
  }
}

function failureOf(failure: KapsoFailure): string {
  if (failure.kind === 'unreachable') return `Kapso could not be reached (${failure.reason}): check the network and KAPSO_BASE_URL`;
  const { status } = failure;
  return status === 401 || status === 403 ? `Kapso refuses the key (${status}): check KAPSO_API_KEY` : `Kapso responded with ${status}`;
}

runCommand(main);
