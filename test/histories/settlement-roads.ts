/** The ways through the settlement of a doubtful send whose histories are kept. */
import { settlementWorkflowId } from '../../workflows/contract';
import { newPhone, outcomesOf, repliesOf } from '../support/expectations';
import type { Road } from './road';

export const settlementRoads: Record<string, Road> = {
  'sent-after-all': doubted({ isAccepted: true }),
  'never-sent': doubted({ isAccepted: false }),
};

/** Kapso takes the reply or does not, says neither, and cannot be asked before the conversation has gone on. */
function doubted({ isAccepted }: { isAccepted: boolean }): Road {
  return async (system) => {
    const phone = newPhone();
    const { kapso } = system.sandbox;
    kapso.fault({ on: 'send', match: { to: phone }, times: 1, answer: 'cut', accepted: isAccepted, statuses: [] });
    const answerAgain = kapso.fault({ on: 'list', answer: '502_html', accepted: false });
    await kapso.customerSends({ from: phone, text: 'hello' });
    await outcomesOf(system, phone, 1, 30_000);
    answerAgain();
    const [reply] = await repliesOf(system, phone);
    if (reply === undefined) throw new Error('there is no reply in doubt');
    return settlementWorkflowId(reply.id);
  };
}
