/**
 * The providers of a turn: which one to call now, when the others may be called, and how each has failed.
 * Pure: no Temporal API, so that its rules can be read and tested alone.
 */

/** A provider and the model to call there. */
export interface Choice {
  provider: string;
  model: string;
}

/** How a provider failed. */
export interface ChainFailure {
  /** For operators: who failed, and what to do. */
  text: string;
  /** Removes the provider from the turn. */
  isPermanent: boolean;
  isEmptyAnswer?: boolean;
  /** It did not answer within the attempt's timeout. */
  isTimeout?: boolean;
  /** The wait that the provider has asked for. */
  retryAfterMs?: number;
}

/** Pauses before a provider that failed is tried again, in ms: the first one doubles each time, up to the longest. */
export interface Pauses {
  firstMs: number;
  longestMs: number;
}

export interface Candidate<C extends Choice = Choice> {
  readonly choice: C;
  /** Attempts in this turn, including the current one. */
  attempts: number;
  nextAtMs: number;
  lastFailure: string | undefined;
  isOut: boolean;
  failures: number;
  emptyAnswers: number;
  timeouts: number;
}

/** A `Retry-After` of at least this is used as it is. A shorter one is only a minimum: some providers send it with every refusal. */
const TRUSTED_WAIT_MS = 5_000;

/** Empty answers cost money. A model that gives this many to one conversation is not likely to do better within minutes. */
const MAX_EMPTY_ANSWERS = 3;

/** Maximum factor by which an attempt's timeout grows, because other providers wait meanwhile. */
const MAX_GROWTH = 4;

/** Pauses are shortened by up to this fraction, so that the conversations hit by an outage do not all retry at the same moments. */
const JITTER = 0.25;

export class Chain<C extends Choice> {
  readonly #pauses: Pauses;
  readonly #known = new Map<string, Candidate<C>>();
  #candidates: Candidate<C>[] = [];

  constructor(pauses: Pauses) {
    this.#pauses = pauses;
  }

  /** Sets the providers and their order. Those that were in the chain before keep their state. */
  use(choices: readonly C[]): void {
    this.#candidates = choices.map((choice) => {
      const key = JSON.stringify([choice.provider, choice.model]);
      const candidate = this.#known.get(key) ?? newCandidate(choice);
      this.#known.set(key, candidate);
      return candidate;
    });
  }

  /** The first provider that may be called now. */
  next(nowMs: number): Candidate<C> | undefined {
    return this.#open().find(({ nextAtMs }) => nextAtMs <= nowMs);
  }

  /** When the next provider may be called; undefined if none is left in the turn. */
  get nextAtMs(): number | undefined {
    return this.#soonest()?.nextAtMs;
  }

  /**
   * Timeout of the current attempt at a provider, in ms. Some local models load at their first request, and start again when it is aborted.
   * So it doubles after each timeout, and the last attempt gets all that is left of the turn, unless another provider has been called less
   * often.
   */
  boundMs(candidate: Candidate<C>, firstMs: number, leftMs: number): number {
    const boundMs = firstMs * Math.min(2 ** candidate.timeouts, MAX_GROWTH);
    const isLast = leftMs < 2 * boundMs && this.#open().every(({ attempts }) => attempts >= candidate.attempts);
    return Math.max(1, isLast ? leftMs : Math.min(boundMs, leftMs));
  }

  failed(candidate: Candidate<C>, failure: ChainFailure, nowMs: number): void {
    candidate.lastFailure = failure.text;
    candidate.failures += 1;
    if (failure.isEmptyAnswer) candidate.emptyAnswers += 1;
    if (failure.isTimeout) candidate.timeouts += 1;
    candidate.isOut = failure.isPermanent || candidate.emptyAnswers >= MAX_EMPTY_ANSWERS;
    candidate.nextAtMs = nowMs + this.#waitMs(candidate, failure.retryAfterMs ?? 0);
  }

  /** Why there is no reply yet: the last failure of the provider that is called next. */
  get waitingFor(): string {
    const candidate = this.#soonest();
    if (!candidate) return this.report;
    return candidate.lastFailure ?? `${candidate.choice.provider} (${candidate.choice.model}) has not answered yet`;
  }

  /** The last failure of each provider, with its number of attempts. */
  get report(): string {
    if (this.#candidates.length === 0) return 'no provider of the chain has an API key: set one';
    return this.#candidates.map(reportLine).join('; ');
  }

  #open(): Candidate<C>[] {
    return this.#candidates.filter(({ isOut }) => !isOut);
  }

  #soonest(): Candidate<C> | undefined {
    return this.#open().reduce<Candidate<C> | undefined>((soonest, each) => {
      return soonest && soonest.nextAtMs <= each.nextAtMs ? soonest : each;
    }, undefined);
  }

  #waitMs({ failures }: Candidate<C>, namedMs: number): number {
    if (namedMs >= TRUSTED_WAIT_MS) return namedMs;
    const pauseMs = Math.min(this.#pauses.firstMs * 2 ** (failures - 1), this.#pauses.longestMs);
    return Math.max(namedMs, Math.round(pauseMs * (1 - JITTER * Math.random())));
  }
}

function newCandidate<C extends Choice>(choice: C): Candidate<C> {
  return { choice, attempts: 0, nextAtMs: 0, lastFailure: undefined, isOut: false, failures: 0, emptyAnswers: 0, timeouts: 0 };
}

function reportLine({ choice: { provider, model }, lastFailure, attempts }: Candidate): string {
  if (attempts === 0) return `${provider} (${model}) was not called`;
  return `${lastFailure ?? `${provider} (${model}) did not answer`}${attempts > 1 ? ` (${attempts} attempts)` : ''}`;
}
