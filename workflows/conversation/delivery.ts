/** Brings a reply to the customer exactly once, or says that it could not. */
import { condition, sleep } from '@temporalio/workflow';
import type { SendReported, SendVerdict } from '../contract';
import { failureType } from '../failures';
import { outbox, records, settlement } from '../proxies';
import type { ConversationView } from './view';

/** When, within the time that an unconfirmed send is given, Kapso's list is asked. The last look decides. */
const LOOKS = [0.05, 0.2, 0.5, 1] as const;

/** A reply that was proven not delivered is sent again this often at most; then a person must look. */
const MAX_RESENDS = 3;

/** A certain refusal (throttled, unreachable) is tried again for this long: longer, and the answer comes too late to help. */
const SEND_RETRY_MS = 60 * 60_000;

/** When Kapso could not be asked at the end of the time of proof, it is asked again after this long… */
const ASK_AGAIN_MS = 2 * 60_000;
/** …for a day: then the customer's window is closed, and a person must find out. */
const ASK_FOR_MS = 24 * 60 * 60_000;

/** A reply in the outbox. */
export interface OutboxReply {
  messageId: string;
  conversationId: string;
  /** How long a send with an unknown outcome waits for proof. */
  sendConfirmMs: number;
  /** The messages that it answers; none for what is sent after a call. */
  answeredIds: string[];
}

export class Delivery {
  readonly #view: ConversationView;
  readonly #reports = new Map<string, SendReported['status']>();

  constructor(view: ConversationView) {
    this.#view = view;
  }

  get hasReports(): boolean {
    return this.#reports.size > 0;
  }

  /** Runs inside a signal handler: never throws. */
  report({ messageId, status }: SendReported): void {
    this.#reports.set(messageId, status);
  }

  /** Reports about earlier replies: a late failure needs a person. */
  applyReports(): void {
    if ([...this.#reports.values()].includes('failed')) this.#view.showAttention(true);
    this.#reports.clear();
  }

  async deliver(reply: OutboxReply): Promise<boolean> {
    const { messageId } = reply;
    const giveUpAtMs = Date.now() + SEND_RETRY_MS;
    let resends = 0;
    for (;;) {
      this.#view.showPhase('sending the reply');
      const isLast = Date.now() >= giveUpAtMs;
      let verdict: SendVerdict = await outbox.sendReply.executeWithOptions({ summary: 'send reply' }, [{ messageId, isLast }]);
      if (verdict.status === 'unconfirmed') {
        verdict = await this.#settle(reply);
        if (verdict.status === 'pending' && ++resends > MAX_RESENDS) return await this.#giveUp(reply);
      }
      switch (verdict.status) {
        case 'sent':
          return true;
        case 'failed':
        case 'unconfirmed':
          return false;
        case 'pending':
          if (verdict.retryAfterMs > 0) await sleep(verdict.retryAfterMs, { summary: `send again: ${verdict.reason}` });
      }
    }
  }

  async #giveUp({ conversationId, answeredIds }: OutboxReply): Promise<false> {
    await records.recordFailedTurn.executeWithOptions({ summary: 'reply not delivered: needs attention' }, [
      { conversationId, messageIds: answeredIds, reason: 'send: proven not delivered, too often' },
    ]);
    return false;
  }

  /**
   * A send whose outcome is unknown is never blindly repeated: its `sent` webhook settles it, or a look into
   * Kapso's list does. Only when the last look finds nothing is it proven not delivered, and pending again.
   */
  async #settle({ messageId, conversationId, sendConfirmMs: confirmMs }: OutboxReply): Promise<SendVerdict> {
    const startedAtMs = Date.now();
    for (const part of LOOKS) {
      const waitMs = Math.max(1, startedAtMs + confirmMs * part - Date.now());
      const verdict = await this.#lookUp(messageId, waitMs, part === 1);
      if (verdict.status !== 'unconfirmed') return verdict;
    }
    await records.requestAttention.executeWithOptions({ summary: 'send unconfirmed: needs attention' }, [
      { conversationId, reason: 'unknown whether the reply went out, and Kapso cannot be asked' },
    ]);
    this.#view.showAttention(true);
    let verdict: SendVerdict = { status: 'unconfirmed' };
    while (verdict.status === 'unconfirmed' && Date.now() - startedAtMs < ASK_FOR_MS)
      verdict = await this.#lookUp(messageId, ASK_AGAIN_MS, true);
    return verdict;
  }

  /** Waits for a report or `waitMs`, then looks. Stays unconfirmed when Kapso could not be asked: only an answer is proof. */
  async #lookUp(messageId: string, waitMs: number, isLast: boolean): Promise<SendVerdict> {
    this.#view.showPhase('waiting for proof of the send');
    await condition(() => this.#reports.has(messageId), waitMs, { summary: 'unknown whether the reply went out' });
    this.#reports.delete(messageId);
    try {
      return await settlement.lookUpSend.executeWithOptions({ summary: 'look the reply up at Kapso' }, [{ messageId, isLast }]);
    } catch (error) {
      // Anything but the activity's own failure is not ours to swallow.
      failureType(error);
      return { status: 'unconfirmed' };
    }
  }
}
