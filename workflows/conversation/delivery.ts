/** Brings a reply to the customer exactly once, or says that it could not. */
import { condition, sleep } from '@temporalio/workflow';
import type { SendProgress, SendReported, SendVerdict } from '../contract';
import { failureType, REFUSED_BY_DATABASE } from '../failures';
import { outbox, records, settlement } from '../proxies';
import { startSettlement } from '../settlement';
import { failTurn } from './turn';
import type { ConversationView } from './view';

/** When Kapso's list is queried, as fractions of `sendConfirmMs`. The last look-up decides. */
const LOOKS = [0.05, 0.2, 0.5, 1] as const;

/** Timeouts of a look-up with its retries, short because the customer's next reply waits. The last one decides, so it gets more time. */
const LEAST_LOOK_MS = 1_000;
const LAST_LOOK_MS = 5_000;

/** A reply that was proven not delivered is sent again this often at most; then a person must look. */
const MAX_RESENDS = 3;

/** A certain refusal (throttled, unreachable) is tried again for this long: longer, and the answer comes too late to help. */
const SEND_RETRY_MS = 60 * 60_000;

/** How long the activity waits for Kapso's response, occupying a slot that other conversations need. Then the row is checked. */
const ANSWER_WAIT_MS = 2_000;
const CHECK_AFTER_MS = 1_000;

/** Pause between the parts of a long reply, because WhatsApp promises no order for two sends in quick succession. */
const PART_PAUSE_MS = 1_000;

/** A send in doubt is settled for a day: then the customer's window is closed, and a person must find out. */
const SETTLE_FOR_MS = 24 * 60 * 60_000;
/** Flow 1: if Kapso is unreachable when the confirmation timeout expires, it is queried again after this long. */
const ASK_AGAIN_MS = 2 * 60_000;

const IN_DOUBT = 'unknown whether the reply was delivered';

/** A reply in the outbox. */
export interface OutboxReply {
  messageId: string;
  conversationId: string;
  /** How long a send with an unknown outcome waits for proof. */
  sendConfirmMs: number;
  /** The messages that it answers; none for what is sent after a call. */
  answeredIds: string[];
  /** The conversation's behaviour, see `Recorded.flow`. */
  flow: number;
}

/** The result of sending a reply or a part. `withheld`: it was discarded, because the bot must be silent. `failed`: it failed, or the outcome is unknown. */
export type Delivered = 'sent' | 'withheld' | 'failed';

export class Delivery {
  readonly #view: ConversationView;
  readonly #reports = new Map<string, SendReported['status']>();
  /** Messages that are being delivered; reports about them are left to their deliveries. */
  readonly #inProgress = new Set<string>();

  constructor(view: ConversationView) {
    this.#view = view;
  }

  get hasReports(): boolean {
    return this.#late.length > 0;
  }

  /** Reports about messages whose delivery has ended. */
  get #late(): [string, SendReported['status']][] {
    return [...this.#reports].filter(([messageId]) => !this.#inProgress.has(messageId));
  }

  /** Runs inside a signal handler: never throws, whatever the signal carries. */
  report(reported: SendReported | undefined): void {
    if (typeof reported?.messageId === 'string') this.#reports.set(reported.messageId, reported.status);
  }

  /** Reports about earlier replies: a late failure needs a person. */
  applyReports(): void {
    const late = this.#late;
    const statuses = late.map(([, status]) => status);
    if (statuses.includes('failed')) {
      this.#view.failed('WhatsApp did not deliver the reply');
      this.#view.showAttention(true);
    } else if (statuses.length > 0) this.#view.hasNotFailed(IN_DOUBT);
    for (const [messageId] of late) this.#reports.delete(messageId);
  }

  /** Sends a reply and its other parts, each once the previous one is known to be sent. Returns what became of the last one tried. */
  async deliverParts(reply: OutboxReply, partIds: readonly string[]): Promise<Delivered> {
    let delivered = await this.deliver(reply);
    for (const messageId of partIds) {
      if (delivered !== 'sent') break;
      await sleep(PART_PAUSE_MS, { summary: 'let the previous part arrive first' });
      delivered = await this.deliver({ ...reply, messageId });
    }
    return delivered;
  }

  async deliver(reply: OutboxReply): Promise<Delivered> {
    this.#inProgress.add(reply.messageId);
    try {
      return await this.#deliver(reply);
    } finally {
      this.#inProgress.delete(reply.messageId);
    }
  }

  async #deliver(reply: OutboxReply): Promise<Delivered> {
    const giveUpAtMs = Date.now() + SEND_RETRY_MS;
    let resends = 0;
    try {
      for (;;) {
        this.#view.showPhase('sending the reply');
        const progress = await this.#send(reply, Date.now() >= giveUpAtMs);
        let verdict = progress.status === 'under_way' ? await this.#awaitResult(reply.messageId) : progress;
        if (verdict.status === 'unconfirmed') {
          verdict = await this.#settle(reply);
          if (verdict.status === 'pending' && ++resends > MAX_RESENDS)
            return await this.#giveUp(reply, 'send: proven not delivered, too often');
        }
        if (verdict.status === 'sent') this.#showSent(reply, verdict.needsAttention);
        if (verdict.status === 'failed') this.#view.failed(verdict.reason);
        if (verdict.status === 'unconfirmed') this.#view.failed(IN_DOUBT);
        if (verdict.status === 'sent' || verdict.status === 'withheld') return verdict.status;
        if (verdict.status !== 'pending') return 'failed';
        if (verdict.retryAfterMs > 0) await sleep(verdict.retryAfterMs, { summary: `send again: ${verdict.reason}` });
      }
    } catch (error) {
      if (failureType(error) !== REFUSED_BY_DATABASE) throw error;
      return await this.#giveUp(reply, 'send: the database refused the reply');
    }
  }

  #send({ messageId, flow }: OutboxReply, isLast: boolean): Promise<SendProgress> {
    const order = { messageId, isLast, ...(flow >= 2 ? { waitMs: ANSWER_WAIT_MS } : {}) };
    return outbox.sendReply.executeWithOptions({ summary: 'send reply' }, [order]);
  }

  /** What the row says once the send is no longer under way. */
  async #awaitResult(messageId: string): Promise<SendVerdict> {
    for (let waitMs = CHECK_AFTER_MS; ; waitMs *= 2) {
      this.#view.showPhase("waiting for Kapso's answer");
      await condition(() => this.#reports.has(messageId), waitMs, { summary: 'Kapso is slow to answer' });
      const progress = await outbox.checkSend.executeWithOptions({ summary: 'see whether Kapso has answered' }, [{ messageId }]);
      if (progress.status !== 'under_way') return progress;
    }
  }

  /** Flow 1 took every reason back with every reply to a message. */
  #showSent({ flow, answeredIds }: OutboxReply, needsAttention: boolean | undefined): void {
    if (flow >= 2 && needsAttention !== undefined) this.#view.showAttention(needsAttention);
    if (flow < 2 && answeredIds.length > 0) this.#view.showAttention(false);
  }

  async #giveUp({ conversationId, answeredIds }: OutboxReply, reason: string): Promise<'failed'> {
    this.#view.failed(reason);
    this.#view.showAttention(true);
    await failTurn({ conversationId, messageIds: answeredIds, reason }, 'reply not delivered: needs attention');
    return 'failed';
  }

  /**
   * Never blindly repeats a send whose outcome is unknown: a `sent` webhook or a look-up in Kapso's list settles it. Only if the last
   * look-up does not find it is it proven not delivered, and pending again.
   */
  async #settle(reply: OutboxReply): Promise<SendVerdict> {
    const { messageId, sendConfirmMs } = reply;
    const startedAtMs = Date.now();
    for (const [index, part] of LOOKS.entries()) {
      const waitMs = Math.max(1, startedAtMs + sendConfirmMs * part - Date.now());
      const untilNextMs = sendConfirmMs * ((LOOKS[index + 1] ?? part) - part);
      const isLast = part === 1;
      const withinMs = isLast ? LAST_LOOK_MS : Math.max(LEAST_LOOK_MS, untilNextMs);
      const verdict = await this.#lookUp(messageId, { waitMs, isLast, withinMs });
      if (verdict.status !== 'unconfirmed') return verdict;
    }
    return reply.flow >= 2 ? await this.#settleApart(reply, startedAtMs) : await this.#settleHere(reply, startedAtMs);
  }

  /** Gives up waiting: the messages become `unconfirmed`, the customer's next ones proceed, and a separate workflow settles the send. */
  async #settleApart({ messageId, conversationId, sendConfirmMs }: OutboxReply, startedAtMs: number): Promise<SendVerdict> {
    const { isSettled } = await records.recordDoubt.executeWithOptions({ summary: 'send unconfirmed: needs attention' }, [
      { messageId, conversationId },
    ]);
    if (isSettled) return await this.#awaitResult(messageId);
    this.#view.showAttention(true);
    // Derived from the confirmation timeout, so that a test that shortens one shortens both.
    await startSettlement({ messageId, untilMs: startedAtMs + SETTLE_FOR_MS, firstPauseMs: 2 * sendConfirmMs });
    return { status: 'unconfirmed' };
  }

  /** Flow 1: the conversation itself waits for a day. May go with 0.3. */
  async #settleHere({ messageId, conversationId }: OutboxReply, startedAtMs: number): Promise<SendVerdict> {
    await records.requestAttention.executeWithOptions({ summary: 'send unconfirmed: needs attention' }, [
      { conversationId, reason: 'unknown whether the reply went out, and Kapso cannot be asked' },
    ]);
    this.#view.showAttention(true);
    let verdict: SendVerdict = { status: 'unconfirmed' };
    while (verdict.status === 'unconfirmed' && Date.now() - startedAtMs < SETTLE_FOR_MS)
      verdict = await this.#lookUp(messageId, { waitMs: ASK_AGAIN_MS, isLast: true, withinMs: ASK_AGAIN_MS });
    return verdict;
  }

  /** Waits for a report, at most `waitMs`, then looks the reply up. If Kapso is unreachable, it stays unconfirmed: nothing is proven. */
  async #lookUp(
    messageId: string,
    { waitMs, isLast, withinMs }: { waitMs: number; isLast: boolean; withinMs: number },
  ): Promise<SendVerdict> {
    this.#view.showPhase('waiting for proof of the send');
    await condition(() => this.#reports.has(messageId), waitMs, { summary: 'unknown whether the reply went out' });
    this.#reports.delete(messageId);
    try {
      const options = { summary: 'look the reply up at Kapso', scheduleToCloseTimeout: withinMs };
      return await settlement.lookUpSend.executeWithOptions(options, [{ messageId, isLast }]);
    } catch (error) {
      // Rethrows anything that is not a failure of the activity.
      failureType(error);
      return { status: 'unconfirmed' };
    }
  }
}
