/** What may happen to a call: what the phone does, which events are told of it, and how they come. */

/** The plays by name. The first seven say what the phone does; the others are answered calls whose events or snapshots go wrong. */
export const PLAYS = [
  'answered',
  'busy',
  'no-answer',
  'voicemail',
  'pipeline-error',
  'missed',
  'concurrency-blocked',
  'no-report',
  'no-events',
  'report-before-ended',
  'duplicated',
  'reordered',
  'stale-snapshots',
] as const;
export type PlayName = (typeof PLAYS)[number];

/** For people who try it: the last four digits of the number dialled choose the play; any others are answered. */
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
};

/** The times of a call, in ms, each from the one before: placed, ringing, in progress, ended, report ready. */
export interface PlayTimings {
  queueMs: number;
  ringMs: number;
  talkMs: number;
  reportMs: number;
}

/** At a pace that a person can follow. */
export const TIMINGS_FOR_PEOPLE: PlayTimings = { queueMs: 400, ringMs: 2_500, talkMs: 9_000, reportMs: 2_000 };

export interface SpokenLine {
  role: 'bot' | 'user';
  text: string;
}

/** Something that truly happens in a call; `atMs` counts from the placing. */
export type PlayStep =
  | { type: 'status'; status: 'queued' | 'ringing' | 'in-progress'; atMs: number }
  | { type: 'words'; line: SpokenLine; atMs: number }
  | { type: 'status'; status: 'ended'; endedReason: string; atMs: number }
  | { type: 'report'; atMs: number };

/** An event that is to be delivered as a webhook; `atMs` counts from the placing, and an event never comes before its cause. */
export interface PlayedEvent {
  type: 'status-update' | 'end-of-call-report' | 'transcript' | 'speech-update' | 'conversation-update';
  status?: string | undefined;
  line?: SpokenLine | undefined;
  atMs: number;
}

/** Decides how the events of a call come: leave one out to lose it, repeat it, give it a later `atMs`. */
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
/** Webhooks that shall come one after the other are this far apart. */
const GAP_MS = 25;

interface Story {
  rings: boolean;
  lines: SpokenLine[];
  /** False: ended without having been in progress. */
  connects: boolean;
  endedReason: string;
  /** Whether Vapi sends a report and keeps one. A call that never found a slot has none (not documented). */
  reports: boolean;
}

const ANSWERED: Story = { rings: true, lines: CONVERSATION, connects: true, endedReason: 'customer-ended-call', reports: true };
const UNCONNECTED: Story = { rings: true, lines: [], connects: false, endedReason: '', reports: true };

function storyOf(play: PlayName): Story {
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
    case 'pipeline-error':
      return { ...ANSWERED, lines: CONVERSATION.slice(0, 2), endedReason: 'call.in-progress.error-providerfault-openai-llm-failed' };
    default:
      return ANSWERED;
  }
}

/** What truly happens. A conversation longer than `maxDurationMs` is ended by Vapi. */
export function stepsOf(play: PlayName, timings: PlayTimings, maxDurationMs: number): PlayStep[] {
  const story = storyOf(play);
  const steps: PlayStep[] = [{ type: 'status', status: 'queued', atMs: 0 }];
  let atMs = timings.queueMs;
  if (story.rings) {
    steps.push({ type: 'status', status: 'ringing', atMs });
    atMs += timings.ringMs;
  }
  let { endedReason } = story;
  if (story.connects) {
    const talkMs = Math.min(timings.talkMs, maxDurationMs);
    if (talkMs < timings.talkMs) endedReason = 'exceeded-max-duration';
    steps.push({ type: 'status', status: 'in-progress', atMs }, ...spoken(story.lines, atMs, timings.talkMs, talkMs));
    atMs += talkMs;
  }
  steps.push(...endingOf(endedReason, atMs, story.reports ? timings.reportMs : undefined));
  return steps;
}

/** The last steps of a call; without `reportMs` there is no report. */
export function endingOf(endedReason: string, atMs: number, reportMs: number | undefined): PlayStep[] {
  const ended: PlayStep = { type: 'status', status: 'ended', endedReason, atMs };
  return reportMs === undefined ? [ended] : [ended, { type: 'report', atMs: atMs + reportMs }];
}

function spoken(lines: SpokenLine[], fromMs: number, plannedMs: number, limitMs: number): PlayStep[] {
  const every = plannedMs / (lines.length + 1);
  return lines
    .map((line, place) => ({ type: 'words' as const, line, atMs: fromMs + Math.round(every * (place + 0.5)) }))
    .filter(({ atMs }) => atMs < fromMs + limitMs);
}

/** The events that tell of these steps, when all goes well. */
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

/** How the events of a play come. */
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
