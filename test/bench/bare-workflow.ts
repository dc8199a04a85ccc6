/** The baseline: a workflow that only runs three empty regular activities per message, one after the other. */
import { condition, proxyActivities, setHandler } from '@temporalio/workflow';
import { messagesReceived } from '../../workflows/contract';

export interface BareActivities {
  first(): Promise<void>;
  second(): Promise<void>;
  /** Empty, except that it reports that it has run. */
  third(mark: string): Promise<void>;
}

const { first, second, third } = proxyActivities<BareActivities>({ startToCloseTimeout: '10 s' });

export async function bareConversation(): Promise<void> {
  const waiting: string[] = [];
  setHandler(messagesReceived, ({ messages }) => {
    for (const { text } of messages) waiting.push(text ?? '');
  });
  for (;;) {
    await condition(() => waiting.length > 0);
    const mark = waiting.shift() ?? '';
    await first();
    await second();
    await third(mark);
  }
}
