/**
 * Responses to the webhooks that Vapi blocks on. They come from the settings alone, because a person is waiting on the line.
 * The format is the unwrapped one of Vapi's server events page; the OpenAPI document wraps the responses, but no working
 * integration does. Features that this installation does not offer are declined in a format that lets the call continue.
 */
import type { Settings } from '../../platform/config';
import type { QuestionMessage, ToolCall } from './events';

export type VapiAnswerSettings = Pick<Settings, 'VAPI_ASSISTANT_ID' | 'VAPI_INBOUND_ASSISTANT_ID' | 'VAPI_TRANSFER_NUMBER'>;

/** `silence`: a request for audio, answered with empty audio. */
export type VapiAnswer = { kind: 'json'; body: object } | { kind: 'silence' };

/** How long a caller must be silent to count as finished: Vapi's default. */
const ENDPOINTING_SECONDS = 0.5;

/** The response to a message that Vapi blocks on. */
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
      // We cannot check the recipient, and a placed call cannot be undone.
      return json({ eligible: false });
    case 'phone-call-control':
      // Vapi ignores the response: control would mean sending commands to the call.
      return json({ error: 'Call control is not available.' });
    case 'voice-request':
      // Vapi would play JSON as noise.
      return { kind: 'silence' };
  }
}

function json(body: object): VapiAnswer {
  return { kind: 'json', body };
}

/** Vapi speaks the error to the caller. */
function chooseAssistant({ VAPI_INBOUND_ASSISTANT_ID, VAPI_ASSISTANT_ID }: VapiAnswerSettings): object {
  const assistantId = VAPI_INBOUND_ASSISTANT_ID ?? VAPI_ASSISTANT_ID;
  return assistantId ? { assistantId } : { error: 'Sorry, nobody can take this call at the moment.' };
}

function chooseDestination({ VAPI_TRANSFER_NUMBER: number }: VapiAnswerSettings): object {
  return number ? { destination: { type: 'number', number } } : { error: 'There is nobody to transfer the call to.' };
}

/** The model reads the error and continues without the tool. */
function declined({ id, name }: ToolCall): object {
  return { ...(name === undefined ? {} : { name }), ...(id === undefined ? {} : { toolCallId: id }), error: 'This tool is not available.' };
}
