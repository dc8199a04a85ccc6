/**
 * Answers to the messages that Vapi waits with: from the settings alone, because a person is on the line. In Vapi's bare
 * form, as its server events page shows it (the OpenAPI document wraps them, and nothing that works does). What this
 * installation does not offer is declined in the form that Vapi reads, so that the call goes on.
 */
import type { Settings } from '../../platform/config';
import type { QuestionMessage, ToolCall } from './events';

export type VapiAnswerSettings = Pick<Settings, 'VAPI_ASSISTANT_ID' | 'VAPI_INBOUND_ASSISTANT_ID' | 'VAPI_TRANSFER_NUMBER'>;

/** Audio is answered with audio; here, with none. */
export type VapiAnswer = { kind: 'json'; body: object } | { kind: 'silence' };

/** How long a caller must be quiet to have finished: Vapi's own default. */
const ENDPOINTING_SECONDS = 0.5;

/** What to say to a question of Vapi's. */
export function answerVapi({ type, toolCalls }: QuestionMessage, settings: VapiAnswerSettings): VapiAnswer {
  switch (type) {
    case 'assistant-request':
      return json(chooseAssistant(settings));
    case 'tool-calls':
    case 'function-call':
      return json({ results: toolCalls.map(declined) });
    case 'transfer-destination-request':
      return json(chooseDestination(settings));
    case 'handoff-destination-request':
      return json({ error: 'There is no assistant to hand the call to.' });
    case 'knowledge-base-request':
      return json({ documents: [] });
    case 'call.endpointing.request':
      return json({ timeoutSeconds: ENDPOINTING_SECONDS });
    case 'campaign.predial':
      // Nothing here can check it, and a call that was placed cannot be taken back.
      return json({ eligible: false });
    case 'phone-call-control':
      // Nobody reads this answer: the call would have to be steered from here.
      return json({ error: 'Call control is not available.' });
    case 'voice-request':
      // JSON would be played as noise.
      return { kind: 'silence' };
  }
}

function json(body: object): VapiAnswer {
  return { kind: 'json', body };
}

/** The error is spoken to the caller. */
function chooseAssistant({ VAPI_INBOUND_ASSISTANT_ID, VAPI_ASSISTANT_ID }: VapiAnswerSettings): object {
  const assistantId = VAPI_INBOUND_ASSISTANT_ID ?? VAPI_ASSISTANT_ID;
  return assistantId ? { assistantId } : { error: 'Sorry, nobody can take this call at the moment.' };
}

function chooseDestination({ VAPI_TRANSFER_NUMBER: number }: VapiAnswerSettings): object {
  return number ? { destination: { type: 'number', number } } : { error: 'There is nobody to transfer the call to.' };
}

/** The model reads the error, and goes on without the tool. */
function declined({ id, name }: ToolCall): object {
  return { ...(name === undefined ? {} : { name }), ...(id === undefined ? {} : { toolCallId: id }), error: 'This tool is not available.' };
}
