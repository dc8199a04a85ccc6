import type { System } from '../support/system';

/** Drives one workflow along a road and returns its id; it need not have ended. */
export type Road = (system: System) => Promise<string>;
