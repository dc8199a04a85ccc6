/** Messages that people wrote, sent one after the other beside the bot's turns: a person does not wait for a model. */
import { CancellationScope } from '@temporalio/workflow';
import type { SendRequested } from '../contract';
import type { Delivery } from './delivery';
import type { ConversationView } from './view';

/** Flow of their delivery (see `Recorded.flow`): flows before 2 sent no manual messages. */
const FLOW = 2;

export class HandSends {
  readonly #delivery: Delivery;
  readonly #view: ConversationView;
  readonly #ended: () => void;
  readonly #queue: SendRequested[] = [];
  #isRunning = false;

  /** `ended` is called when all are sent. */
  constructor(delivery: Delivery, view: ConversationView, ended: () => void) {
    this.#delivery = delivery;
    this.#view = view;
    this.#ended = ended;
  }

  get areRunning(): boolean {
    return this.#isRunning;
  }

  /** Runs inside a signal handler: never throws, whatever the signal carries. A message that is in the queue is not added again. */
  add(order: SendRequested | undefined): void {
    if (typeof order?.messageId !== 'string' || typeof order.conversationId !== 'string') return;
    if (this.#queue.some(({ messageId }) => messageId === order.messageId)) return;
    this.#queue.push(order);
    if (this.#isRunning) return;
    this.#isRunning = true;
    void CancellationScope.nonCancellable(() => this.#sendAll());
  }

  async #sendAll(): Promise<void> {
    for (let next = this.#queue[0]; next; next = this.#queue[0]) {
      await this.#send(next);
      this.#queue.shift();
    }
    this.#isRunning = false;
    this.#ended();
  }

  async #send({ messageId, conversationId, sendConfirmMs, answeredIds }: SendRequested): Promise<void> {
    this.#view.conversationId ??= conversationId;
    const delivered = await this.#delivery.deliver({
      messageId,
      conversationId,
      sendConfirmMs,
      answeredIds: answeredIds ?? [],
      flow: FLOW,
    });
    if (delivered === 'sent') this.#view.replied('by a person');
    else this.#view.showAttention(true);
  }
}
