/** The scenarios of simulated calls. Each decides what the phone does, which events follow, and how they arrive. */

/** The scenarios by name. The first eight differ in what the phone does; the others are answered calls with faulty events or snapshots. */
export const PLAYS = [
  'answered',
  'busy',
  'no-answer',
  'voicemail',
  'silent',
  'pipeline-error',
  'missed',
  'concurrency-blocked',
  'no-report',
  'no-events',
  'report-before-ended',
  'duplicated',
  'reordered',
  'stale-snapshots',
  'late-report',
  'facts-inside-call',
] as const;
export type PlayName = (typeof PLAYS)[number];

/** The scenario by the last four digits of the dialled number, for trying things out; any other number is answered. */
export const PLAYS_BY_DIGITS: Readonly<Record<string, PlayName>> = {
  '0101': 'busy',
  '0102': 'no-answer',
  '0103': 'voicemail',
  '0104': 'pipeline-error',
  '0105': 'no-report',
  '0106': 'no-events',
  '0107': 'missed',
  '0108': 'report-before-ended',
  '0109': 'duplicated',
  '0110': 'reordered',
  '0111': 'stale-snapshots',
  '0112': 'concurrency-blocked',
  '0113': 'silent',
  '0114': 'late-report',
  '0115': 'facts-inside-call',
};

/** Durations of a call's phases, in ms: to ringing, to in progress, to ended, to the report, and to a late report. */
export interface PlayTimings {
  queueMs: number;
  ringMs: number;
  talkMs: number;
  reportMs: number;
  lateReportMs: number;
}

/** A pace that people can follow. A late report arrives after Parley has stopped waiting for it (10 s for simulated calls). */
export const DEFAULT_TIMINGS: PlayTimings = { queueMs: 400, ringMs: 2_500, talkMs: 9_000, reportMs: 2_000, lateReportMs: 20_000 };

/** A line of the conversation. */
export interface SpokenLine {
  role: 'bot' | 'user';
  text: string;
}

/** A step of a call: what really happens. `atMs` counts from the placement. */
export type PlayStep =
  | { type: 'status'; status: 'queued' | 'ringing' | 'in-progress'; atMs: number }
  | { type: 'words'; line: SpokenLine; atMs: number }
  | { type: 'status'; status: 'ended'; endedReason: string; atMs: number }
  | { type: 'report'; atMs: number };

/** An event to deliver as a webhook. `atMs` counts from the placement; an event is never sent before its step. */
export interface PlayedEvent {
  type: 'status-update' | 'end-of-call-report' | 'transcript' | 'speech-update' | 'conversation-update';
  status?: string | undefined;
  line?: SpokenLine | undefined;
  atMs: number;
}

/** Changes how the events of a call arrive: drops, repeats or delays them. */
export type Schedule = (events: PlayedEvent[]) => PlayedEvent[];

const CONVERSATION: SpokenLine[] = [
  { role: 'bot', text: 'Hello, this is a test call from Example Clinic. Do you have a moment?' },
  { role: 'user', text: 'Yes, go ahead.' },
  { role: 'bot', text: 'Can you make your appointment on December first at ten?' },
  { role: 'user', text: 'Yes, ten is fine.' },
  { role: 'bot', text: 'Great, see you then. Goodbye.' },
  { role: 'user', text: 'Bye.' },
];
const MAILBOX: SpokenLine[] = [
  { role: 'user', text: 'The person you are calling is not available. Please leave a message after the tone.' },
  { role: 'bot', text: 'Hello, this is Example Clinic. Please call us back.' },
];
const SILENCE: SpokenLine[] = [{ role: 'bot', text: 'Hello, this is a test call from Example Clinic. Are you there?' }];
/** Interval between webhooks that must arrive in a given order. */
const GAP_MS = 25;

/** What the phone does in a scenario. */
interface Scenario {
  rings: boolean;
  lines: SpokenLine[];
  /** False: the call ends without having been in progress. */
  connects: boolean;
  endedReason: string;
  /** Whether Vapi sends and stores a report. A call without a free slot has none (undocumented). */
  reports: boolean;
}

const ANSWERED: Scenario = { rings: true, lines: CONVERSATION, connects: true, endedReason: 'customer-ended-call', reports: true };
const UNCONNECTED: Scenario = { rings: true, lines: [], connects: false, endedReason: '', reports: true };

function scenarioOf(play: PlayName): Scenario {
  switch (play) {
    case 'busy':
      return { ...UNCONNECTED, endedReason: 'customer-busy' };
    case 'no-answer':
      return { ...UNCONNECTED, endedReason: 'customer-did-not-answer' };
    case 'missed':
      return { ...UNCONNECTED, rings: false, endedReason: 'twilio-reported-customer-misdialed' };
    case 'concurrency-blocked':
      return { ...UNCONNECTED, rings: false, reports: false, endedReason: 'call.start.error-subscription-concurrency-limit-reached' };
    case 'voicemail':
      return { ...ANSWERED, lines: MAILBOX, endedReason: 'voicemail' };
    case 'silent':
      return { ...ANSWERED, lines: SILENCE, endedReason: 'silence-timed-out' };
    case 'pipeline-error':
      return { ...ANSWERED, lines: CONVERSATION.slice(0, 2), endedReason: 'call.in-progress.error-providerfault-openai-llm-failed' };
    default:
      return ANSWERED;
  }
}

/** The steps of a scenario. Vapi ends a conversation that exceeds `maxDurationMs`. */
export function stepsOf(play: PlayName, timings: PlayTimings, maxDurationMs: number): PlayStep[] {
  const scenario = scenarioOf(play);
  const steps: PlayStep[] = [{ type: 'status', status: 'queued', atMs: 0 }];
  let atMs = timings.queueMs;
  if (scenario.rings) {
    steps.push({ type: 'status', status: 'ringing', atMs });
    atMs += timings.ringMs;
  }
  let { endedReason } = scenario;
  if (scenario.connects) {
    const talkMs = Math.min(timings.talkMs, maxDurationMs);
    if (talkMs < timings.talkMs) endedReason = 'exceeded-max-duration';
    steps.push({ type: 'status', status: 'in-progress', atMs }, ...wordSteps(scenario.lines, atMs, timings.talkMs, talkMs));
    atMs += talkMs;
  }
  steps.push(...endingOf(endedReason, atMs, scenario.reports ? reportDelayMs(play, timings) : undefined));
  return steps;
}

/** How long after its end the report of a call is ready, in ms. */
export function reportDelayMs(play: PlayName, { reportMs, lateReportMs }: PlayTimings): number {
  return play === 'late-report' ? lateReportMs : reportMs;
}

/** The final steps of a call; without `reportMs` there is no report. */
export function endingOf(endedReason: string, atMs: number, reportMs: number | undefined): PlayStep[] {
  const ended: PlayStep = { type: 'status', status: 'ended', endedReason, atMs };
  return reportMs === undefined ? [ended] : [ended, { type: 'report', atMs: atMs + reportMs }];
}

function wordSteps(lines: SpokenLine[], fromMs: number, plannedMs: number, limitMs: number): PlayStep[] {
  const every = plannedMs / (lines.length + 1);
  return lines
    .map((line, place) => ({ type: 'words' as const, line, atMs: fromMs + Math.round(every * (place + 0.5)) }))
    .filter(({ atMs }) => atMs < fromMs + limitMs);
}

/** The events of these steps, before any schedule is applied. */
export function eventsOf(steps: PlayStep[]): PlayedEvent[] {
  return steps.flatMap(eventsOfStep);
}

function eventsOfStep(step: PlayStep): PlayedEvent[] {
  switch (step.type) {
    case 'status':
      return [{ type: 'status-update', status: step.status, atMs: step.atMs }];
    case 'words':
      return (['speech-update', 'transcript', 'conversation-update'] as const).map((type) => ({ type, line: step.line, atMs: step.atMs }));
    case 'report':
      return [{ type: 'end-of-call-report', atMs: step.atMs }];
  }
}

/** The schedule of a scenario's events. */
export function scheduleOf(play: PlayName): Schedule {
  switch (play) {
    case 'no-events':
      return () => [];
    case 'no-report':
      return (events) => events.filter(({ type }) => type !== 'end-of-call-report');
    case 'report-before-ended':
      return (events) => events.map((event) => (event.status === 'ended' ? { ...event, atMs: lastOf(events) + GAP_MS } : event));
    case 'duplicated':
      return (events) => events.flatMap((event) => [event, { ...event, atMs: event.atMs + GAP_MS }]);
    case 'reordered':
      return (events) => events.toReversed().map((event, place) => ({ ...event, atMs: lastOf(events) + place * GAP_MS }));
    default:
      return (events) => events;
  }
}

function lastOf(events: PlayedEvent[]): number {
  return Math.max(...events.map(({ atMs }) => atMs));
}
