/** The findings of `npm run doctor`. */

/** `problem`: does not work. `warning`: works, but not as it should. `note`: was not checked, or is off. */
export type Level = 'ok' | 'note' | 'warning' | 'problem';

/** One line of `npm run doctor`. Never contains a secret, a phone number or a message. */
export interface Finding {
  subject: string;
  level: Level;
  /** The state and, unless it is ok, what to do. */
  text: string;
}

/** Findings about one subject. */
export function about(subject: string) {
  const finding =
    (level: Level) =>
    (text: string): Finding => ({ subject, level, text });
  return { ok: finding('ok'), note: finding('note'), warning: finding('warning'), problem: finding('problem') };
}

/** What keeps a message from being answered. */
export function problemsIn(findings: readonly Finding[]): string[] {
  return findings.filter(({ level }) => level === 'problem').map(({ text }) => text);
}
