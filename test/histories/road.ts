import type { Receiver } from '../../src/sandbox/receiver';
import type { System } from '../support/system';

/** The system that a history is recorded on, with a receiver of callbacks beside it. */
export type RecordedSystem = System & { receiver: Receiver };

/** Drives one workflow along a road and returns its id; it need not have ended. */
export type Road = (system: RecordedSystem) => Promise<string>;
