/** Who answers a conversation, and the updates that change it. */
import type { UpdateDefinition } from '@temporalio/common';
import { defineSignal, defineUpdate } from '@temporalio/workflow';

/** `ai`: the bot answers. `human`: a person does. `paused`: nobody does. */
export type Mode = 'ai' | 'human' | 'paused';

/** Why a conversation is handed to a person. */
export const HAND_OVER_REASONS = ['customer_asked', 'model_unsure', 'policy', 'failure', 'budget', 'loop', 'other'] as const;
export type HandOverReason = (typeof HAND_OVER_REASONS)[number];

/** What the person who takes over should know. */
export interface HandOver {
  reason: HandOverReason;
  /** At most three lines. */
  summary?: string;
  /** What is still open. */
  questions?: string[];
  /** Language of the workspace's text that is sent to the customer, such as `en`; if there is none, `en` or else the first one. */
  language?: string;
}

/** `attend`: a person has dealt with the reasons for attention. */
export const MODE_ACTIONS = ['takeOver', 'release', 'pause', 'assign', 'close', 'attend', 'handOver'] as const;
export type ModeAction = (typeof MODE_ACTIONS)[number];

/** A change that a person requests. */
export interface ModeOrder {
  conversationId: string;
  /** Who requests it. */
  by: string;
  /** The person from whom it is taken; refused if somebody else has it by now. */
  from?: string;
  /** `assign`: who gets it. */
  to?: string;
  /** `takeOver`, `assign`, `pause`: when the bot comes back by itself; milliseconds since 1970. */
  untilMs?: number;
  /** `handOver`. */
  handOver?: HandOver;
}

/** The result of a change, once it has taken effect. */
export interface ModeChanged {
  conversationId: string;
  mode: Mode;
  heldBy: string | null;
  /** Drafts that were discarded before any part of them was sent. */
  withheldIds: string[];
  /** Messages of the bot that are being sent, or may have been sent: they cannot be recalled. */
  onTheirWayIds: string[];
}

type UpdatesByAction = Record<ModeAction, UpdateDefinition<ModeChanged, [ModeOrder]>>;

/** Each update is validated, and completes once the change has taken effect. It fails with a `ModeError.*`; `Held` has a `Holder` as its detail. */
export const modeUpdates = {
  takeOver: defineUpdate<ModeChanged, [ModeOrder]>('takeOver'),
  release: defineUpdate<ModeChanged, [ModeOrder]>('release'),
  pause: defineUpdate<ModeChanged, [ModeOrder]>('pause'),
  assign: defineUpdate<ModeChanged, [ModeOrder]>('assign'),
  close: defineUpdate<ModeChanged, [ModeOrder]>('close'),
  attend: defineUpdate<ModeChanged, [ModeOrder]>('attend'),
  handOver: defineUpdate<ModeChanged, [ModeOrder]>('handOver'),
} as const satisfies UpdatesByAction;

/** Types of the failures of `modeUpdates`. */
export const MODE_HELD = 'ModeError.Held';
export const MODE_UNKNOWN_CONVERSATION = 'ModeError.UnknownConversation';
export const MODE_INVALID = 'ModeError.Invalid';

/** Who has a conversation that was requested. */
export interface Holder {
  heldBy: string;
  /** ISO 8601. */
  since: string;
}

/** The holder after a message from the WhatsApp Business app. Anybody may take over from it. */
export const PHONE_HOLDER = 'WhatsApp Business app';

/** A conversation whose bot may answer again, or whose mode was changed outside of its workflow. */
export interface LookAgain {
  conversationId: string;
}

/** Makes a conversation read its mode, and answer what waits if it may. */
export const lookAgain = defineSignal<[LookAgain]>('lookAgain');

/** A message in the outbox that a person wrote. */
export interface SendRequested {
  messageId: string;
  conversationId: string;
  /** How long a send with an unknown outcome waits for proof. */
  sendConfirmMs: number;
  /** The messages that it answers. */
  answeredIds?: string[];
}

export const sendRequested = defineSignal<[SendRequested]>('sendRequested');
