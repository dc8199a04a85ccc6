/** A workspace's clients for its providers: with its own accounts, or with those of the environment. */
import type { KapsoClient } from '../src/providers/kapso/client';
import type { LanguageModels } from '../src/providers/models/client';
import type { VapiClient } from '../src/providers/vapi/client';

export interface WorkspaceServices {
  kapso: KapsoClient;
  /** True if `kapso` reaches real people. Nothing simulated is sent then. */
  isReal: boolean;
  vapi: VapiClient;
  /** False if calls are simulated and WhatsApp is not: such a call must not leave a note or send a message to a real person. */
  tellsConversations: boolean;
  models: LanguageModels;
  /** IANA name; prompts contain the local time there. */
  timeZone: string;
}

/** The services of each workspace, or some of them. Looked up for each use, so that a change of a workspace takes effect. */
export interface ServicesByWorkspace<T = WorkspaceServices> {
  /** Of the workspace with this number at Kapso. */
  ofNumber(phoneNumberId: string): Promise<T>;
  /** `null`: no workspace is known, so the environment's. */
  ofWorkspace(workspaceId: string | null): Promise<T>;
}

/** The same services for every workspace. */
export function sameForAll<T>(services: T): ServicesByWorkspace<T> {
  return { ofNumber: async () => services, ofWorkspace: async () => services };
}
